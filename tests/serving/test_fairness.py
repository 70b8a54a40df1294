"""Tests who gets the budget of a step, who is preempted, and who may pass whom."""

import random

import pytest
from simulated_engine import VOCABULARY, SimulatedEngine, make_request, make_scheduler

import models.serving.scheduler
from models.serving.request import Status
from models.serving.scheduler import PARTIAL, PASSES, PREEMPTIONS


def long_request(name: str, prompt: int, max_tokens: int = 8, first: int = 0, **params):
    return make_request(name, range(first, first + prompt), max_tokens, ignore_eos=True, **params)


def tokens_of(step) -> dict[str, int]:
    return {work.request.request_id: work.tokens for work in step.work}


def settled(scheduler, depth: int = 1, decodes: int = 0) -> SimulatedEngine:
    """Return an engine that decodes so many sequences already."""
    engine = SimulatedEngine(scheduler, depth)
    for i in range(decodes):
        scheduler.add(long_request(f"d{i}", 3, 400, first=1000 * (i + 1)))
    while any(r.total - r.computed > 1 for r in scheduler.waiting + scheduler.running):
        engine.step()
    return engine


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("longs", [1, 3, 6])
def test_a_long_prompt_stalls_nobody(depth, longs):
    budget = 32
    scheduler = make_scheduler(2000, max_num_batched_tokens=budget, max_num_seqs=16,
                               max_model_len=1024)
    engine = settled(scheduler, depth, decodes=4)
    for i in range(longs):
        scheduler.add(long_request(f"long{i}", 16 * budget, first=5000 * (i + 1)))
    engine.step()
    engine.step()
    short = long_request("short", 10)
    scheduler.add(short)
    firsts = []
    while any(r.request_id.startswith("long") and not r.finished and not r.output_ids
              for r in scheduler.running + scheduler.waiting):
        work = tokens_of(engine.step())
        assert all(work.get(f"d{i}") == 1 for i in range(4)), "a decode goes without a token"
        firsts.append(work)
    steps = [i for i, work in enumerate(firsts, 1) if "short" in work]
    # after the step that computes the end of its prompt there is a token
    assert len(firsts) > 16 and sum(w.get("short", 0) for w in firsts[:2]) >= 10, steps[:3]


def test_a_long_prompt_alone_takes_the_whole_budget():
    scheduler = make_scheduler(2000, max_num_batched_tokens=32, max_model_len=512)
    engine = settled(scheduler, decodes=2)
    scheduler.add(long_request("long", 300))
    assert tokens_of(engine.step())["long"] == 30


def test_a_long_prompt_takes_half_while_others_wait_and_what_they_leave():
    scheduler = make_scheduler(2000, max_num_batched_tokens=32, max_model_len=512)
    scheduler.add(long_request("long", 300))
    scheduler.add(long_request("b", 16, first=1000))
    step = scheduler.schedule()
    assert tokens_of(step) == {"long": 16, "b": 16}
    scheduler.update(step, [1])
    scheduler.add(long_request("c", 5, first=2000))
    assert tokens_of(scheduler.schedule()) == {"long": 26, "b": 1, "c": 5}


def test_prompts_go_on_in_order_and_few_are_half_computed():
    scheduler = make_scheduler(4000, max_num_batched_tokens=32, max_num_seqs=16,
                               max_model_len=512)
    for i in range(8):
        scheduler.add(long_request(str(i), 400, first=1000 * i))
    engine = SimulatedEngine(scheduler)
    while scheduler.has_unfinished:
        engine.step()
        half = [r for r in scheduler.running if r.total - r.computed > 1]
        assert len(half) <= PARTIAL
        if half and len(half) > 1:
            assert half[0].computed >= half[-1].computed


def test_the_last_to_arrive_is_preempted_and_comes_back():
    scheduler = make_scheduler(10, max_model_len=40)
    first, last = long_request("first", 15, 20), long_request("last", 15, 20, first=1000)
    for request in (first, last):
        scheduler.add(request)
    engine = SimulatedEngine(scheduler)
    engine.run()
    assert first.preemptions == 0 and last.preemptions >= 1
    assert len(first.output_ids) == len(last.output_ids) == 20


def test_a_higher_number_of_priority_is_preempted_first():
    scheduler = make_scheduler(10, max_model_len=40)
    low = long_request("low", 15, 20, priority=1)
    high = long_request("high", 15, 20, first=1000)
    for request in (low, high):
        scheduler.add(request)
    SimulatedEngine(scheduler).run()
    assert low.preemptions >= 1 and high.preemptions == 0


def test_priority_is_served_before_arrival():
    scheduler = make_scheduler(max_num_seqs=1)
    scheduler.add(long_request("a", 4, priority=2))
    scheduler.add(long_request("b", 4, priority=-1))
    assert list(tokens_of(scheduler.schedule())) == ["b"]


def test_preemption_counts_blocks_that_wait_for_a_step():
    scheduler = make_scheduler(6, max_num_seqs=3, max_model_len=24)
    requests = [long_request(str(i), 7, 16, first=100 * i) for i in range(3)]
    for request in requests:
        scheduler.add(request)
    steps = [scheduler.schedule()]
    scheduler.queued(steps[0])
    assert len(steps[0].work) == 2, "one block for each running sequence stays free"
    scheduler.update(steps[0], [1, 1])
    while not steps[-1].preempted:  # two steps in flight
        steps.append(scheduler.schedule())
        scheduler.queued(steps[-1])
        if len(steps) > 2 and not steps[-1].preempted:
            scheduler.update(steps[-2], [1] * len(steps[-2].work))
        assert len(steps) < 9
    assert steps[-1].preempted == [requests[1]] and steps[-1].work == []
    assert (scheduler.pool.free, scheduler.pool.waiting) == (0, 3)
    scheduler.update(steps[-2], [1, 1])
    step = scheduler.schedule()
    assert [w.request for w in step.work] == [requests[0]] and not step.preempted
    scheduler.check()


def fill(updates: bool, hostages: int = 0):
    """Return a scheduler that has just preempted `b` for `a`, blocks that the test holds, and the
    step; without `updates` the steps before it are all in flight."""
    scheduler = make_scheduler(8 + hostages, max_num_seqs=4, max_model_len=32)
    held = scheduler.pool.allocate(hostages)
    for name, first in (("a", 0), ("b", 1000)):
        scheduler.add(long_request(name, 11, 20, first))
    step = scheduler.schedule()
    while not step.preempted:
        scheduler.queued(step)
        if updates:
            scheduler.update(step, [1] * len(step.work))
        if not scheduler.pool.free and len(scheduler.waiting) == 0:
            scheduler.add(long_request("c", 1, 1, first=2000))
        step = scheduler.schedule()
    assert [r.request_id for r in step.preempted] == ["b"]
    return scheduler, held, step


def test_nothing_is_admitted_in_a_step_that_preempts():
    scheduler, _, step = fill(updates=True)
    assert tokens_of(step) == {"a": 1} and scheduler.pool.free == 3
    scheduler.update(step, [1])
    assert tokens_of(scheduler.schedule()) == {"a": 1, "c": 1}


def test_a_request_preempted_with_tokens_in_flight_waits_for_them():
    scheduler, held, step = fill(updates=False, hostages=20)
    assert step.preempted[0].pending and not step.work
    scheduler.pool.release(held)
    assert tokens_of(scheduler.schedule()) == {"a": 1, "c": 1}, "there are blocks for b as well"


def test_one_that_does_not_fit_is_passed_by_few_smaller_ones():
    scheduler = make_scheduler(20, max_num_seqs=4, max_model_len=80)
    engine = SimulatedEngine(scheduler)
    scheduler.add(long_request("holder", 30, 40))
    engine.step()
    big = long_request("big", 60, 4, first=1000)
    scheduler.add(big)
    small = [long_request(f"s{i}", 2, 2, first=2000 + 10 * i) for i in range(20)]
    for request in small:
        scheduler.add(request)
    while big.status is Status.WAITING:
        passed = [r for r in small if r.status is not Status.WAITING]
        engine.step()
    assert len(passed) == PASSES
    engine.run()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_pool_does_not_thrash(depth, seed):
    thrash(seed, depth, PREEMPTIONS)


def test_without_its_rule_a_small_pool_thrashes(monkeypatch):
    monkeypatch.setattr(models.serving.scheduler, "PREEMPTIONS", 10**9)
    with pytest.raises(AssertionError, match="preempted"):
        thrash(0, 1, PREEMPTIONS)


def thrash(seed: int, depth: int, most: int) -> None:
    """Run 50 requests in a pool of 1.2 of the longest; none may be preempted more than `most`."""
    rng, longest, size = random.Random(seed), 128, 4
    scheduler = make_scheduler(int(1.2 * longest / size), size, max_num_seqs=16,
                               max_num_batched_tokens=64, max_model_len=longest)
    requests = [make_request(str(i), [rng.randrange(VOCABULARY) for _ in
                                      range(rng.randint(2, 24))], rng.randint(8, 104),
                             ignore_eos=True) for i in range(50)]
    for request in requests:
        scheduler.add(request)
    SimulatedEngine(scheduler, depth).run()
    assert all(r.finish_reason == "length" for r in requests)
    worst = max(r.preemptions for r in requests)
    assert worst <= most, f"preempted {worst} times"
    assert sum(r.preemptions for r in requests) > 20, "the pool is small enough to preempt"
