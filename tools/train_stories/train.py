"""Trains the tiny story models: ``python tools/train_stories/train.py --model all --out DIR``."""

import argparse
import math
import shutil
import tempfile
from pathlib import Path

import torch
from check import check
from dataset import ROW, rows, tokenizer_corpus
from recipes import RECIPES, Recipe, write_folder
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

BATCH = 4
PEAK_RATE = 3e-3
WARMUP = 200
WEIGHT_DECAY = 0.05
CLIP = 1.0


def rate_at(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a linear warm-up, then half a cosine to zero."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 + 0.5 * math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP))


def optimizer_for(model: PreTrainedModel) -> torch.optim.AdamW:
    """Make AdamW, with weight decay on matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))


def fit(model: PreTrainedModel, table: torch.Tensor, name: str, console: Console) -> float:
    """One pass over the rows; gives the loss, smoothed over the last steps."""
    optimizer = optimizer_for(model)
    batches = table.split(BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate_at(s, len(batches)))
    smooth = math.log(model.config.vocab_size)
    columns = [*Progress.get_default_columns(), TimeElapsedColumn()]
    columns.append(TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=len(batches), loss=smooth)
        for step, batch in enumerate(batches, start=1):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            smooth += 0.02 * (loss.item() - smooth)
            progress.update(task, advance=1, loss=smooth)
            if step % 250 == 0:
                console.print(f"{name} step {step}/{len(batches)} loss {smooth:.4f}")
    return smooth


def save_weights(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    """Write ``model.safetensors``, without the output matrix where it is the embedding."""
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    tensors = {
        key: tensor.to(dtype).contiguous()
        for key, tensor in model.state_dict().items()
        if key not in tied
    }
    path = folder / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def make(recipe: Recipe, out: Path, seed: int, steps: int, console: Console) -> None:
    """Train one model in a temporary folder, and put it in place when it is whole."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"stories-{recipe.name}"
    with tempfile.TemporaryDirectory(dir=out, prefix=".training-") as scratch:
        folder = Path(scratch) / target.name
        folder.mkdir()
        write_folder(recipe, folder, tokenizer_corpus(recipe, seed))
        table = rows(recipe, folder, seed + 1, BATCH * steps)
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(folder)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        loss = fit(model.train(), table, recipe.name, console)
        save_weights(model, folder, recipe.dtype)
        console.print(f"{target.name}: {steps * BATCH * ROW} tokens, loss {loss:.4f}")
        check(folder, console)
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)


def main() -> None:
    """Read the command line and make the models that it names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=[*RECIPES, "all"], default="all")
    parser.add_argument("--out", type=Path, required=True, help="parent of the model folders")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console()
    names = list(RECIPES) if arguments.model == "all" else [arguments.model]
    for name in names:
        recipe = RECIPES[name]
        make(recipe, arguments.out, arguments.seed, arguments.steps or recipe.steps, console)


if __name__ == "__main__":
    main()
