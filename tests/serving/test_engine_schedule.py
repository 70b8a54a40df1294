"""An engine with a model: nobody waits for long prompts, preemption ends, prefixes are shared."""

import random

import pytest

import models
from models import SamplingParams

MODEL = "stories-llama2"
BACKENDS = ("cpu_numpy", "cpu_numba,cpu_numpy")


def options_of(backend: str) -> dict:
    """Return options that compute in float32 on it, on every machine. Skips where it is not
    installed."""
    pytest.importorskip(backend.partition(",")[0])
    return {"backend": backend, "dtype": "f32"}


def params(tokens: int, **more) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, **more)


def prompt(seed: int, length: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, 500) for _ in range(length)]


def finish(engine) -> dict:
    found = {}
    while engine.has_unfinished_requests:
        found |= {o.request_id: o for o in engine.step() if o.finished}
    engine.check()
    assert engine.pool.free == engine.pool.blocks
    return found


@pytest.fixture(scope="module")
def engine():
    with models.load_engine(MODEL, max_context=512, max_num_seqs=8) as engine:
        yield engine


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_long_prompt_stalls_nobody(backend):
    """Compute a prompt of 16 chunks: who runs gets a token each step, who comes is served soon."""
    with models.load_engine(MODEL, max_context=400, max_num_seqs=8, max_num_batched_tokens=20,
                            **options_of(backend)) as engine:
        running = [f"r{i}" for i in range(4)]
        for i, name in enumerate(running):
            engine.add_request(name, prompt(i, 3), params(60))
        while len(engine.step()) < 4:
            pass
        engine.add_request("long", prompt(9, 16 * 20), params(4))
        first, short, steps = None, None, 0
        while first is None:
            if steps == 3:
                engine.add_request("short", prompt(10, 10), params(3))
            names = {o.request_id for o in engine.step()}
            assert set(running) <= names, "each running request gets a token in each step"
            steps += 1
            short = steps - 3 if short is None and "short" in names else short
            first = steps if "long" in names else None
        assert short is not None and short <= 2
        assert 16 <= first <= 40
        finish(engine)


@pytest.mark.parametrize("backend", BACKENDS)
def test_preemption_ends(backend):
    """Run 50 requests in a pool for 1.2 of the longest: each is preempted at most 3 times, and has
    the tokens that it has with room for all."""
    prompts = [prompt(i, random.Random(i).randrange(2, 60)) for i in range(50)]
    asked = [params(random.Random(-i).randrange(4, 68)) for i in range(50)]
    options = {"max_context": 128, "max_num_seqs": 12, "enable_prefix_caching": False,
               **options_of(backend)}
    with models.load_engine(MODEL, **options) as engine:
        expected = [o.outputs[0].token_ids for o in engine.generate(prompts, asked)]
        assert engine.stats.preemptions == 0
    with models.load_engine(MODEL, **options, kv_blocks=10) as engine:
        for i, (ids, one) in enumerate(zip(prompts, asked, strict=True)):
            engine.add_request(str(i), ids, one)
        requests = list(engine.scheduler.waiting)
        found = finish(engine)
        counts = [r.preemptions for r in requests]
        assert sum(counts) == engine.stats.preemptions > 10 and max(counts) <= 3
    assert [found[str(i)].outputs[0].token_ids for i in range(50)] == expected


def test_prefixes_change_no_token(engine):
    """Compute prompts cold, warm, beside each other, and under salts."""
    shared = prompt(1, 70)
    prompts = [shared + prompt(i, n) for i, n in enumerate((1, 10, 26, 27, 60), 2)]
    asked = params(6)
    for i, ids in enumerate(prompts):  # cold: each under a salt of its own
        engine.add_request(f"cold{i}", ids, asked, salt=f"s{i}")
    cold = finish(engine)
    assert all(o.cached_tokens == 0 for o in cold.values())
    tokens = {i: cold[f"cold{i}"].outputs[0].token_ids for i in range(5)}
    before = engine.stats.prompt_tokens
    outputs = engine.generate(prompts, asked)  # together, without a salt: nothing is there yet
    assert [o.outputs[0].token_ids for o in outputs] == list(tokens.values())
    again = engine.generate(prompts, asked)
    assert [o.outputs[0].token_ids for o in again] == list(tokens.values())
    # full blocks, and one token of a prompt is always computed
    assert [o.cached_tokens for o in again] == [(len(ids) - 1) // 16 * 16 for ids in prompts]
    computed = engine.stats.prompt_tokens - before
    assert computed == sum(2 * len(p) - o.cached_tokens - a.cached_tokens
                           for p, o, a in zip(prompts, outputs, again, strict=True))
    (fresh,) = engine.generate([[*shared, 5, 6, 7]], asked)
    assert fresh.cached_tokens == 64
    for salt, cached in (("s0", 64), ("s9", 0), ("", 64)):
        engine.add_request(salt or "none", prompts[0], asked, salt=salt)
        found = finish(engine)[salt or "none"]
        assert (found.cached_tokens, found.outputs[0].token_ids) == (cached, tokens[0])


def test_a_prompt_while_its_prefix_is_computed(engine):
    """Start a request on blocks of one that still runs."""
    ids = prompt(20, 90)
    engine.add_request("a", ids, params(30))
    while not engine.step():
        pass
    engine.add_request("b", [*ids[:80], 7, 8], params(5))
    engine.add_request("c", ids, params(30))
    found = finish(engine)
    assert [found[n].cached_tokens for n in "abc"] == [0, 80, 80]
    assert found["a"].outputs[0].token_ids == found["c"].outputs[0].token_ids
    with models.load_engine(MODEL, max_context=512, enable_prefix_caching=False) as other:
        b, c = other.generate([[*ids[:80], 7, 8], ids], [params(5), params(30)])
        assert (b.cached_tokens, c.cached_tokens) == (0, 0)
        assert b.outputs[0].token_ids == found["b"].outputs[0].token_ids
        assert c.outputs[0].token_ids == found["c"].outputs[0].token_ids


def test_a_second_identical_prompt_is_not_computed():
    """Compute at most 16 of its 1,000 tokens."""
    with models.load_engine("stories-llama3", max_context=1024) as engine:
        ids = prompt(3, 1000)
        (first,) = engine.generate([ids], params(3))
        before = engine.stats.prompt_tokens
        assert before == 1000
        (second,) = engine.generate([ids], params(3))
        assert engine.stats.prompt_tokens - before <= 16 and second.cached_tokens >= 984
        assert second.outputs[0].token_ids == first.outputs[0].token_ids
