"""Compares an engine's greedy tokens with those of transformers, by a table of Markdown.

    python tools/serving/e3.py [--model NAME ...] [--backend NAME] [--vllm PYTHON]

Each model is exported to a Hugging Face folder, which both programs read in float32. transformers
computes the prompts by its continuous batching, `generate_batch`, or one after another with
--one-by-one. With --vllm, the tokens are those of vLLM, which PYTHON has. Where tokens differ, our
logits and those of transformers at the first different token say how near the two are: a difference
below TIE is a near tie, which rounding decides. Exit code 1: there is another difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

import models
from models import SamplingParams, export

PROMPTS, LONGEST, TOKENS = 64, 90, 48
TIE = 1e-4  # of logits; float32 sums of these models differ by about 1e-5
_VLLM = """
import json, sys
from vllm import LLM, SamplingParams
folder, asked, answer = sys.argv[1:]
prompts, tokens = json.load(open(asked))
model = LLM(folder, dtype="float32", max_model_len=160, enforce_eager=True)
params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
found = model.generate([{"prompt_token_ids": ids} for ids in prompts], params)
json.dump([list(one.outputs[0].token_ids) for one in found], open(answer, "w"))
"""
OPTIONS = {"max_num_seqs": 12, "max_num_batched_tokens": 40, "kv_blocks": 48}  # chunks, preemption


def draw_prompts(vocab_size: int) -> list[list[int]]:
    """Draw prompts, a third of them with a common beginning."""
    rng = random.Random(0)
    shared = [rng.randrange(3, vocab_size) for _ in range(40)]
    return [(shared if i % 3 == 0 else []) + [rng.randrange(3, vocab_size) for _ in range(
        rng.randrange(1, LONGEST - 40))] for i in range(PROMPTS)]


def transformers_tokens(model: PreTrainedModel, prompts: list[list[int]], *, batched: bool,
                        ) -> list[list[int]]:
    """Return the greedy tokens that transformers generates."""
    config = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=-1,
                              pad_token_id=0)
    if batched:
        found = model.generate_batch(prompts, generation_config=config)
        return [list(found[name].generated_tokens) for name in sorted(
            found, key=lambda name: int(name.rsplit("_", 1)[1]))]
    made = []
    for ids in prompts:
        out = model.generate(torch.tensor([ids]), generation_config=config,
                             attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        made.append(out[0, len(ids):].tolist())
    return made


def vllm_tokens(python: str, folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """Return the greedy tokens that vLLM generates for all prompts at once."""
    asked, answer = folder.with_name("asked.json"), folder.with_name("answer.json")
    asked.write_text(json.dumps([prompts, TOKENS]))
    subprocess.run([python, "-c", _VLLM, str(folder), str(asked), str(answer)], check=True,
                   env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1",
                        "VLLM_CPU_KVCACHE_SPACE": "1"}, stdout=sys.stderr)
    found: list[list[int]] = json.loads(answer.read_text())
    return found


def compare(name: str, backend: str, *, batched: bool, vllm: str | None) -> tuple[str, bool]:
    """Return a row of the table, and whether all differences are near ties."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported"
        if export.main(["--model", name, "--to", "hf", "--out", str(path)]):
            raise SystemExit(f"{name} cannot be exported")
        theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        with models.load_engine(path, backend=backend, dtype="f32", max_context=160,
                                **OPTIONS) as engine:
            prompts = draw_prompts(engine.vocab_size)
            outputs = engine.generate(prompts, SamplingParams(
                temperature=0, max_tokens=TOKENS, ignore_eos=True))
            preempted, ledger = engine.stats.preemptions, engine.ledger.hash
        ours = [o.outputs[0].token_ids for o in outputs]
        expected = (vllm_tokens(vllm, path, prompts) if vllm else
                    transformers_tokens(theirs, prompts, batched=batched))
        differ = [i for i in range(PROMPTS) if ours[i] != expected[i]]
        gaps = list[str]()
        ok = True
        with models.load(path, backend=backend, dtype="f32", max_context=160) as model:
            for i in differ:
                at = next((k for k, (a, b) in enumerate(zip(ours[i], expected[i], strict=False))
                           if a != b), -1)
                if at < 0:
                    gaps.append(f"prompt {i}: {len(ours[i])}, {len(expected[i])} tokens")
                    ok = False
                    continue
                ids, a, b = prompts[i] + ours[i][:at], ours[i][at], expected[i][at]
                with torch.no_grad():
                    other = theirs(torch.tensor([ids])).logits[0, -1].double().numpy()
                own = model.logits(ids)[-1].astype(np.float64)
                gap = max(abs(own[a] - own[b]), abs(other[a] - other[b]))
                ok &= gap < TIE
                gaps.append(f"prompt {i}, token {at}: {a}, {b}, apart by {own[a] - own[b]:.1e} "
                            f"(ours), {other[b] - other[a]:.1e} (theirs)")
    return (f"| {name} | {PROMPTS - len(differ)} of {PROMPTS} | {'; '.join(gaps) or 'none'} | "
            f"{preempted} | {ledger} |"), ok


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", action="append", metavar="NAME")
    p.add_argument("--backend", default="cpu_numpy")
    p.add_argument("--one-by-one", action="store_true")
    p.add_argument("--vllm", metavar="PYTHON", help="compare with vLLM, which this Python has")
    args = p.parse_args()
    rows = [compare(name, args.backend, batched=not args.one_by_one, vllm=args.vllm)
            for name in args.model or ("stories-llama2", "stories-llama3", "stories-qwen2")]
    print("| model | equal | differences | preemptions | ledger |\n|---|---|---|---|---|")
    for row, _ in rows:
        print(row)
    return 0 if all(ok for _, ok in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
