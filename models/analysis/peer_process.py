"""Generates with another engine, in a process that models.bench --peers starts.

The interpreter may be one without kernelyard: this imports nothing of it. Arguments: the peer, the
model's file or folder, a JSON file of what is asked, and the JSON file to write: `version`,
`seconds` from the first prompt to the last token, `first_s` until each sequence has one, `tokens`
of each sequence; or `skipped`, why not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

Result = dict[str, Any]
SHORT = 2  # tokens of the run that warms up


def run_transformers(path: str, prompts: list[list[int]], counts: list[int], temperature: float,
                     dtype: str, *, gpu: bool) -> Result:
    """Generate by the continuous batching behind `generate_batch`."""
    torch, library = import_module("torch"), import_module("transformers")
    version = f"transformers {library.__version__}, torch {torch.__version__}"
    model = library.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
    model = model.to("cuda" if gpu else "cpu").eval()
    if not hasattr(model, "continuous_batching_context_manager"):
        return {"skipped": f"{version} has no continuous batching"}
    hot = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    config = library.GenerationConfig(max_new_tokens=max(counts), eos_token_id=-1, pad_token_id=0,
                                      **hot)

    def generate(prompts: list[list[int]], counts: Sequence[int]) -> Result:
        with model.continuous_batching_context_manager(generation_config=config, block=True,
                                                       timeout=5) as manager:
            start, found = time.perf_counter(), dict[str, list[int]]()
            names = [manager.add_request(ids, max_new_tokens=n)
                     for ids, n in zip(prompts, counts, strict=True)]
            while len(found) < len(names):
                output = manager.get_result(timeout=1)
                if output is not None and output.error:
                    raise RuntimeError(output.error)
                if output is not None and output.is_finished():
                    found[output.request_id] = list(output.generated_tokens)
                elif output is None and not manager.is_running():
                    raise RuntimeError("its loop ended before the requests did")
            seconds = time.perf_counter() - start
        return {"version": version, "seconds": seconds, "tokens": [found[n] for n in names]}
    generate(prompts, [SHORT] * len(prompts))
    first = generate(prompts, [1] * len(prompts))["seconds"]
    return {**generate(prompts, counts), "first_s": first}


def run_llama(path: str, prompts: list[list[int]], counts: list[int], temperature: float,
              dtype: str, *, gpu: bool) -> Result:
    """Decode greedily, every sequence in each batch, as llama.cpp's batched-bench does."""
    lib, np = import_module("llama_cpp"), import_module("numpy")
    if temperature or len(set(counts)) > 1:
        return {"skipped": "llama.cpp's library computes batches, and schedules no requests"}
    quiet = lib.llama_log_callback(lambda *_: None)
    lib.llama_log_set(quiet, None)
    lib.llama_backend_init()
    how, params = lib.llama_model_default_params(), lib.llama_context_default_params()
    how.n_gpu_layers = 999 if gpu else 0
    model = lib.llama_model_load_from_file(path.encode(), how)
    if not model:
        raise RuntimeError(f"it cannot load {path}")
    params.n_seq_max, params.kv_unified = len(prompts), True
    params.n_ctx = sum(map(len, prompts)) + sum(counts) + 64
    params.n_batch = params.n_ubatch = max(512, len(prompts))
    params.n_threads = params.n_threads_batch = os.cpu_count() or 1
    context = lib.llama_init_from_model(model, params)
    size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    batch = lib.llama_batch_init(params.n_batch, 0, 1)

    def decode(rows: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Compute (sequence, position, id, whether logits are wanted); return tokens by sequence.
        """
        batch.n_tokens = len(rows)
        for i, (sequence, position, token, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        if code := lib.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode returned {code}")
        return {row[0]: int(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i),
                                                  (size,)).argmax())
                for i, row in enumerate(rows) if row[3]}

    def generate(count: int) -> Result:
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        start, last = time.perf_counter(), dict[int, int]()
        rows = [(s, p, token, p + 1 == len(ids)) for s, ids in enumerate(prompts)
                for p, token in enumerate(ids)]
        for i in range(0, len(rows), params.n_batch):
            last |= decode(rows[i:i + params.n_batch])
        made, first = [[last[s]] for s in range(len(prompts))], time.perf_counter() - start
        for n in range(1, count):
            last = decode([(s, len(ids) + n - 1, made[s][-1], True)
                           for s, ids in enumerate(prompts)])
            for s, tokens in enumerate(made):
                tokens.append(last[s])
        return {"version": f"llama-cpp-python {lib.__version__}", "tokens": made,
                "first_s": first, "seconds": time.perf_counter() - start}
    generate(SHORT)
    return generate(counts[0])


def main(name: str, path: str, asked: str, answer: str) -> None:
    runs: dict[str, Callable[..., Result]] = {"transformers": run_transformers,
                                              "llama.cpp": run_llama}
    try:
        found = runs[name](path, **json.loads(Path(asked).read_text(encoding="utf-8")))
    except ImportError as error:
        found = {"skipped": f"not installed in {sys.executable} ({error})"}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
