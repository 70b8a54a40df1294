"""Tests sharing of blocks between requests, and that the simulated engine finds faults of it."""

import random

import pytest
from simulated_engine import VOCABULARY, SimulatedEngine, expected, make_request, make_scheduler

from core.runtime.kv_cache import BlockPool
from models.serving.holdings import Holdings
from models.serving.request import Status


def run(engine: SimulatedEngine, *requests) -> int:
    """Run requests to their ends; return how many tokens the steps computed."""
    before = engine.computed
    for request in requests:
        engine.scheduler.add(request)
    engine.run()
    engine.scheduler.check()
    for r in requests:
        assert r.output_ids == expected(r), r
    return engine.computed - before


def big() -> SimulatedEngine:
    return SimulatedEngine(make_scheduler(400, 16, max_num_batched_tokens=256,
                                          max_model_len=2048))


@pytest.mark.parametrize("length", [1000, 1008])
def test_a_second_equal_prompt_computes_at_most_a_block(length):
    engine = big()
    first, second = (make_request(name, range(length), 1) for name in "ab")
    assert run(engine, first) == length
    assert run(engine, second) == length - 992 <= 16
    assert second.cached_tokens == 992 and first.cached_tokens == 0
    assert (engine.scheduler.pool.queries, engine.scheduler.pool.hits) == (2 * length, 992)


def test_a_salt_keeps_prompts_apart():
    engine = big()
    run(engine, make_request("a", range(100), 1, salt="mine"))
    for salt, cached in (("", 0), ("yours", 0), ("mine", 96)):
        request = make_request(salt, range(100), 1, salt=salt)
        assert run(engine, request) == 100 - cached
        assert request.cached_tokens == cached, salt


def test_prompts_that_run_at_the_same_time_share_blocks():
    scheduler = big().scheduler
    first, second = make_request("a", range(100), 30), make_request("b", range(100), 30)
    for request in (first, second):
        scheduler.add(request)
        step = scheduler.schedule()
        scheduler.queued(step)  # its token is not known yet
    assert first.blocks[:6] == second.blocks[:6] and first.blocks[6] != second.blocks[6]
    assert scheduler.pool.free == 400 - 8


@pytest.mark.parametrize("depth", [1, 2])
def test_equal_prompts_that_arrive_together_are_computed_once(depth):
    engine = big()
    engine.depth = depth
    requests = [make_request(str(i), range(100), 20, ignore_eos=True) for i in range(8)]
    assert run(engine, *requests) == 100 + 7 * 4 + 8 * 19
    assert [r.cached_tokens for r in requests] == [0] + [96] * 7


def test_each_chunk_of_a_long_prompt_is_shared():
    scheduler = make_scheduler(400, 16, max_num_batched_tokens=64, max_num_seqs=16,
                               max_model_len=2048)
    engine = SimulatedEngine(scheduler)
    requests = [make_request(str(i), [*range(500), i], 1) for i in range(12)]
    for request in requests:
        scheduler.add(request)
    engine.step()
    short = make_request("short", range(1000, 1010), 1)
    scheduler.add(short)
    engine.step()
    engine.step()
    assert short.output_ids, "those that wait for a prefix hold nobody up"
    engine.run()
    assert engine.computed == 501 + 11 * 5 + 10
    for r in requests:
        assert r.output_ids == expected(r)


def test_a_prompt_that_waits_for_a_prefix_goes_on_without_it():
    engine = big()
    first, second = make_request("a", range(600), 5), make_request("b", range(590), 5)
    for request in (first, second):
        engine.scheduler.add(request)
    engine.step()
    assert second.status is Status.WAITING
    engine.scheduler.finish(first, "abort")
    engine.run()
    assert second.output_ids == expected(second) and second.cached_tokens == 256
    engine.scheduler.check()


def test_what_a_request_generated_is_shared_too():
    engine = big()
    first = make_request("a", range(40), 30, ignore_eos=True)
    run(engine, first)
    assert len(first.ids) == 70
    chat = make_request("b", [*first.ids, 7, 8], 5)
    run(engine, chat)
    assert chat.cached_tokens == 64, "70 tokens were known, 4 blocks of them full"


def test_a_preempted_request_finds_its_own_blocks():
    engine = SimulatedEngine(make_scheduler(10, max_model_len=40))
    requests = [make_request(name, range(first, first + 15), 20, ignore_eos=True)
                for name, first in (("a", 0), ("b", 1000))]
    computed = run(engine, *requests)
    assert requests[1].preemptions and requests[1].cached_tokens == 0
    without = SimulatedEngine(make_scheduler(10, max_model_len=40, caching=False))
    again = [make_request(r.request_id, r.ids[:15], 20, ignore_eos=True) for r in requests]
    assert computed < run(without, *again)


def test_logprobs_of_a_prompt_are_computed():
    engine = big()
    run(engine, make_request("a", range(100), 1))
    request = make_request("b", range(100), 1, prompt_logprobs=0)
    assert run(engine, request) == 100 and request.cached_tokens == 0


def test_caching_can_be_off():
    engine = SimulatedEngine(make_scheduler(64, caching=False))
    for name in "ab":
        assert run(engine, make_request(name, range(30), 1)) == 30


def shared_load(depth: int) -> None:
    """Run requests with prompts of few blocks in a small pool; many are aborted."""
    scheduler = make_scheduler(14, max_model_len=40, max_num_seqs=4, max_num_batched_tokens=5)
    rng, engine = random.Random(4), SimulatedEngine(scheduler, depth)
    requests = []
    for i in range(500):
        prompt = [j % VOCABULARY for _ in range(rng.randrange(1, 5))
                  for j in rng.choice([b"aaab", b"abcd"])] + [rng.randrange(3)] * (i % 3)
        requests.append(make_request(str(i), prompt, rng.randrange(1, 12)))
        scheduler.add(requests[-1])
        for _ in range(rng.randrange(5)):
            engine.step()
        if rng.random() < 0.4 and scheduler.running:
            scheduler.finish(rng.choice(scheduler.running), "abort")
    engine.run()
    scheduler.check()
    assert scheduler.pool.free == scheduler.pool.blocks
    for r in requests:
        assert r.output_ids == expected(r)[:len(r.output_ids)], r


def release_at_once(self, blocks, after=0):
    self._drop(reversed(blocks))


def match_one_too_many(self, keys, tokens, real=BlockPool.match):
    return real(self, keys, tokens + self.block_size)


def match_wrong_start(self, keys, tokens, real=BlockPool.match):
    return real(self, keys[1:], tokens)


def forget_parents(self, keys, ids, salt=b"", real=BlockPool.extend_keys):
    for i in range(len(keys), len(ids) // self.block_size):
        own = []
        real(self, own, ids[i * self.block_size:(i + 1) * self.block_size], salt)
        keys += own


def enter_unfilled(self, request, real=Holdings.enter):
    request.computed += 1
    real(self, request)
    request.computed -= 1


def acquire_without_count(self, blocks, queries=0):
    for block in blocks:
        self._idle.pop(block, None)
        self._refs[block] = self._refs[block] or 1


def keep_evicted_keys(self, n, real=BlockPool.allocate):
    keys = list(self._keys)
    taken = real(self, n)
    for block in taken:
        if keys[block]:
            self._cached[keys[block]] = block
    return taken


MUTANTS = {
    "releases at once": (BlockPool, "release", release_at_once),
    "the whole prompt is matched": (BlockPool, "match", match_one_too_many),
    "a shared block too far": (BlockPool, "match", match_wrong_start),
    "keys without parents": (BlockPool, "extend_keys", forget_parents),
    "a block enters before it is full": (Holdings, "enter", enter_unfilled),
    "shared blocks counted once": (BlockPool, "acquire", acquire_without_count),
    "evicted blocks still found": (BlockPool, "allocate", keep_evicted_keys)}


@pytest.mark.parametrize("depth", [1, 2])
def test_shared_load(depth):
    shared_load(depth)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_faulty_cache_is_noticed(mutant, monkeypatch):
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(Exception):  # noqa: B017 - a wrong token, a wrong count, or a crash
        shared_load(2)
