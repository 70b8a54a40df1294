"""Tries lm-eval: log-likelihoods are those of our own model and of transformers."""

import json
import tempfile
from pathlib import Path
from typing import Any

from common import command, equal, fail, target

TASKS = Path(__file__).with_name("lm_eval_tasks")
CLOSE = 1e-3  # of a sum of log-probabilities in float32
t = target()


def evaluate(*model: str) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of both tasks."""
    with tempfile.TemporaryDirectory() as folder:
        command("lm-eval", "run", *model, "--include_path", str(TASKS), "--log_samples",
                "--tasks", "kernelyard_choice,kernelyard_generation", "--output_path", folder,
                "--batch_size", "1", folder=TASKS, OPENAI_API_KEY=t.key)
        return {task: [json.loads(line) for file in Path(folder).rglob(f"samples_*_{task}_*.jsonl")
                       for line in file.read_text().splitlines()]
                for task in ("choice", "generation")}


def scores(samples: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, bool]]:
    """Return the log-likelihood of each context and continuation, and whether it is greedy."""
    return {(arguments["arg_0"], arguments["arg_1"]): (float(found[0]), str(found[1]) == "True")
            for sample in samples for arguments, (found,) in zip(
                sample["arguments"].values(), sample["resps"], strict=True)}


served = evaluate("--model", "local-completions", "--model_args",
                  f"model={t.model},base_url={t.v1}/completions,num_concurrent=4,"
                  f"tokenizer_backend=huggingface,tokenizer={t.folder},add_bos_token=True")
theirs = scores(evaluate("--model", "hf", "--device", "cpu", "--model_args",
                         f"pretrained={t.folder},dtype=float32,add_bos_token=True")["choice"])
ours = {(context, continuation): (total, greedy)
        for context, continuation, total, greedy in t.loglikelihood}
found = scores(served["choice"])
equal("questions", sorted(found), sorted(ours))
worst = {}
for name, others in (("Model", ours), ("transformers", theirs)):
    worst[name] = max(abs(found[pair][0] - others[pair][0]) for pair in found)
    if worst[name] > CLOSE:
        fail(f"log-likelihoods differ by {worst[name]:.1e} from those of {name}")
    equal(f"which are greedy by {name}", [found[pair][1] for pair in found],
          [others[pair][1] for pair in found])
texts = {sample["doc"]["q"]: sample["resps"][0][0] for sample in served["generation"]}
equal("generated texts", texts, dict(t.generated))
print(f"{len(found)} log-likelihoods: largest difference from `Model.logits` "
      f"{worst['Model']:.0e}, from `--model hf` {worst['transformers']:.0e}; {len(texts)} "
      "generated texts equal `Model.generate`")
