"""Draws requests and schedules, and compares an engine's tokens with those of `Model.generate`."""

import random

import models
from models import SamplingParams

REQUESTS = 34  # of each configuration: 204 in total
CONFIGURATIONS = {
    "llama2": ("stories-llama2", {}), "llama3": ("stories-llama3", {}),
    "qwen2": ("stories-qwen2", {}), "int8": ("stories-llama2", {"quantize": "int8"}),
    "f16_cache": ("stories-llama3", {"kv_dtype": "f16"}),
    # an int8 code turns on the last bit of what it rounds, so only equal bits give equal tokens
    "int8_cache": ("stories-qwen2", {"kv_dtype": "i8", "batch_invariant": True})}
#: one after another; few at a time in small chunks; a cache of the longest request, so that some
#: are preempted; all at once
SCHEDULES = ({"max_num_seqs": 1}, {"max_num_seqs": 6, "max_num_batched_tokens": 17},
             {"max_num_seqs": 12, "max_num_batched_tokens": 32, "kv_blocks": 7},
             {"max_num_seqs": 64})


def random_requests(seed: int, vocab_size: int, count: int):
    """Draw prompts, some with a common beginning, and what is asked of each."""
    rng = random.Random(seed)
    shared = [rng.randrange(3, vocab_size) for _ in range(40)]
    prompts, asked = [], []
    for i in range(count):
        own = [rng.randrange(3, vocab_size) for _ in range(rng.randrange(1, 40))]
        prompts.append((shared if rng.random() < 0.3 else []) + own)
        hot = rng.random() < 0.5
        asked.append({"temperature": rng.uniform(0.3, 1.2) if hot else 0.0, "seed": i,
                      "top_k": rng.choice((0, 0, 20)), "top_p": rng.choice((1.0, 0.9)),
                      "repetition_penalty": rng.choice((1.0, 1.0, 1.3)),
                      "max_new_tokens": rng.randrange(1, 24)})
    return prompts, asked


def params_of(asked) -> SamplingParams:
    given = dict(asked)
    return SamplingParams(max_tokens=given.pop("max_new_tokens"), **given)


def check_same_tokens(name: str, backend: str, count: int = REQUESTS) -> None:
    """Fail unless every request has the same tokens, text and end alone and under each schedule."""
    model, options = CONFIGURATIONS[name]
    options = {"backend": backend, "dtype": "f32", "max_context": 128, **options}
    with models.load(model, **options) as alone:
        prompts, asked = random_requests(len(name), alone.config.vocab_size, count)
        expected = [alone.generate(p, **a).run() for p, a in zip(prompts, asked, strict=True)]
    params = [params_of(a) for a in asked]
    for schedule in SCHEDULES:
        with models.load_engine(model, **options, **schedule) as engine:
            outputs = engine.generate(prompts, params)
            engine.check()
            assert engine.pool.free == engine.pool.blocks
            if count == REQUESTS or "kv_blocks" not in schedule:
                assert (engine.stats.preemptions > 0) == ("kv_blocks" in schedule)
        for output, wanted in zip(outputs, expected, strict=True):
            one = output.outputs[0]
            assert one.token_ids == wanted.tokens, (schedule, output.request_id)
            assert (one.text, one.finish_reason) == (wanted.text, wanted.finish_reason)
