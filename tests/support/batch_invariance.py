"""The property of --batch-invariant: a request gives the same tokens and the same log-probability
bits alone and in any schedule. Hypothesis draws schedules of real requests on a small model."""

import random
from collections import OrderedDict

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import models
from models import SamplingParams

SLOTS, BLOCKS, CONTEXT = 8, 64, 112
LEAST = 8  # blocks: those of the longest request and one more


def requests(vocab_size: int) -> list[tuple[list[int], SamplingParams]]:
    """Return prompts, most of the same two blocks in some order, and how each is sampled. Short
    prompts have long texts, which are preempted in a small cache."""
    rng = random.Random(20)

    def ids(n: int) -> list[int]:
        return [rng.randrange(3, vocab_size) for _ in range(n)]
    a, b = ids(16), ids(16)
    prompts = [a + b, b + a, a + a + ids(3), b + a + b, a + b + ids(9), ids(40), ids(5), ids(3)]
    return [(prompt, SamplingParams(
        temperature=0.8 * (i % 2), seed=i, top_p=0.9 if i % 4 == 1 else 1.0, ignore_eos=True,
        presence_penalty=0.5 if i == 2 else 0.0, max_tokens=50 if len(prompt) < 16 else 3 * i + 2,
        logprobs=2, prompt_logprobs=1 if i in (4, 5) else None))
        for i, prompt in enumerate(prompts)]


def open_engine(backend: str, **options):
    """Load the engine that every schedule uses: plans are made once."""
    return models.load_engine("stories-llama3", backend=backend, max_context=CONTEXT,
                              max_num_seqs=SLOTS, max_num_batched_tokens=128, kv_blocks=BLOCKS,
                              **{"batch_invariant": True, **options})


def restart(engine, *, seqs: int, tokens: int, blocks: int, caching: bool, seed: int) -> None:
    """Begin anew with another schedule, the blocks and the slots in a random order."""
    engine._blocks, engine._caching = blocks, caching
    engine._options.update(max_num_seqs=seqs, max_num_batched_tokens=max(seqs, tokens))
    engine._reset()
    engine._news.clear()  # of a schedule that failed
    rng = random.Random(seed)
    engine.pool._idle = OrderedDict.fromkeys(rng.sample(range(blocks), blocks))
    rng.shuffle(engine.scheduler.held.slots)


def results_of(output) -> tuple:
    """Return what must be equal: every float of it in bits."""
    one = output.outputs[0]
    return one.token_ids, one.text, one.finish_reason, one.logprobs, output.prompt_logprobs


def alone(engine) -> list[tuple]:
    """Compute each request by itself: the whole prompt at once, nothing cached."""
    restart(engine, seqs=1, tokens=128, blocks=BLOCKS, caching=False, seed=0)
    return [results_of(engine.generate([prompt], params)[0])
            for prompt, params in requests(engine.vocab_size)]


class Watch:
    """Raise for a step that writes a block which a step in flight names for another request: a
    device may still read or write it."""

    def __init__(self, engine) -> None:
        self.engine, self.named = engine, {}
        self.make, engine._batching.batch = engine._batching.batch, self.batch

    def batch(self, step):
        flight = {s.number for s, _ in self.engine._flight}
        self.named = {n: held for n, held in self.named.items() if n in flight}
        held = {work.request: set(work.request.blocks) for work in step.work}
        for request, start, tokens, _ in step.work:
            written = set(request.blocks[start // 16:(start + tokens - 1) // 16 + 1])
            for others in self.named.values():
                assert not any(written & blocks for other, blocks in others.items()
                               if other is not request), "a step in flight names this block"
        self.named[step.number] = held
        return self.make(step)


def run_schedule(engine, rng: random.Random, expected: list[tuple]) -> None:
    """Draw a schedule, run it, and compare each request with `expected`; one that is aborted with
    the beginning of it."""
    asked = requests(engine.vocab_size)
    restart(engine, seqs=rng.choice((SLOTS, SLOTS, 3)), tokens=rng.choice((64, 33, 17, 9, 5, 2)),
            blocks=rng.choice((LEAST, LEAST, LEAST + 2, 16, BLOCKS)),
            caching=rng.random() < 0.8, seed=rng.randrange(100))
    engine.executor._backend.run_ahead = rng.choice((1, 2))
    Watch(engine)
    arrivals = [(rng.randrange(len(asked)), rng.choice((0, 0, 0, 1, 3, 20)),
                 rng.choice((None, None, None, 1, 4, 15))) for _ in range(rng.randrange(3, 14))]
    running, aborts, step = {}, {}, 0
    try:
        while arrivals or engine.has_unfinished_requests or engine._flight:
            while arrivals and arrivals[0][1] <= 0:
                which, _, ends = arrivals.pop(0)
                name = f"{len(arrivals)}-{which}"
                running[name] = which
                engine.add_request(name, *asked[which])
                if ends is not None:
                    aborts[name] = step + ends
            if arrivals:
                which, gap, ends = arrivals[0]
                arrivals[0] = which, gap - 1, ends
            for output in engine.step():
                if output.finished:
                    which = running.pop(output.request_id)
                    assert results_of(output) == expected[which], (which, output)
            step += 1
            for name in [n for n, at in aborts.items() if at <= step and n in running]:
                which = running.pop(name)
                _check_beginning(results_of(engine.abort_request(name)), expected[which])
            engine.check()
        assert not running and engine.pool.free == engine.pool.blocks
    finally:
        engine.executor._backend.run_ahead = 1


def _check_beginning(found: tuple, expected: tuple) -> None:
    ids, logprobs, prompt = found[0], found[3], found[4] or []
    assert ids == expected[0][:len(ids)] and logprobs == expected[3][:len(ids)]
    assert prompt == (expected[4] or [])[:len(prompt)]


def check_property(engine, expected: list[tuple], examples: int) -> None:
    """Raise what a schedule raises under which a request has other results than alone."""
    @settings(max_examples=examples, derandomize=True, database=None, deadline=None,
              phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
              report_multiple_bugs=False)
    @given(st.randoms(use_true_random=False))
    def schedule(rng) -> None:
        run_schedule(engine, rng, expected)

    schedule()
