"""Tests the scheduler by a simulated engine that notices each wrong read of the cache."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_engine import VOCABULARY, SimulatedEngine, expected, make_request, make_scheduler

from core.errors import LifetimeError, OptionError, PromptError, QueueFullError
from models.serving.request import Status
from models.serving.scheduler import PARTIAL, PREEMPTIONS


def random_prompt(rng: random.Random, shared, longest: int) -> list[int]:
    """Return a prompt that often begins as others do, or is one of them."""
    prompt = rng.choice(shared)[:rng.randrange(41)]
    if not prompt or rng.random() < 0.8:
        prompt = prompt + [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 30))]
    return prompt[:longest]


def check_tokens(requests) -> None:
    for r in requests:
        right = expected(r)
        assert r.output_ids == right[:len(r.output_ids)], r
        if r.finish_reason == "abort":
            continue
        assert len(r.output_ids) == len(right), r
        assert r.finish_reason == ("stop" if right[-1] in r.stop_ids else "length")


def run_random(rng: random.Random, steps: int, **limits: int) -> list:
    """Drive an engine of random size with random requests and aborts; check after each step."""
    longest = rng.choice([20, 64, 200])
    size = rng.choice([1, 4, 16])
    least = -(-longest // size)
    blocks = rng.randrange(least, least * 5)
    scheduler = make_scheduler(
        blocks, size, caching=rng.random() < 0.8, max_num_seqs=rng.choice([1, 4, 12]),
        max_num_batched_tokens=rng.choice([12, 33, 128]), max_model_len=longest, **limits)
    engine = SimulatedEngine(scheduler, depth=rng.choice([1, 2, 3]))
    shared = [[rng.randrange(VOCABULARY) for _ in range(40)] for _ in range(3)]
    live, ended, priorities = [], [], rng.choice([[0], [0, 0, 1]])
    for k in range(steps):
        if rng.random() < 0.25:
            request = make_request(
                str(k), random_prompt(rng, shared, longest), rng.choice([None, 1, 5, 40]),
                salt=rng.choice(["", "a"]), needs_token=rng.random() < 0.2,
                priority=rng.choice(priorities))
            scheduler.add(request)
            live.append(request)
        if live and rng.random() < 0.1:
            scheduler.finish(rng.choice(live), "abort")
        oldest = scheduler.running[:1]
        step = engine.step()
        assert not set(oldest) & set(step.preempted), "the first in order is never preempted"
        assert sum(r.total - r.computed > 1 for r in scheduler.running) <= PARTIAL
        scheduler.check()
        ended += [r for r in live if r.finished]
        live = [r for r in live if not r.finished]
    engine.run()
    scheduler.check()
    assert (scheduler.pool.free, scheduler.pool.waiting) == (blocks, 0)
    check_tokens(ended + live)
    if len(priorities) == 1:
        assert max(r.preemptions for r in ended + live) <= PREEMPTIONS
    return ended + live


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_run_gives_the_right_tokens_and_loses_no_block(rng):
    run_random(rng, 80)


def test_ten_thousand_steps_with_aborts_and_preemptions():
    requests = []
    for seed in range(10):
        requests += run_random(random.Random(seed), 1000)
    assert sum(r.preemptions for r in requests) > 50
    assert sum(r.finish_reason == "abort" for r in requests) > 200
    assert sum(r.cached_tokens > 0 for r in requests) > 200
    assert {r.finish_reason for r in requests} == {"abort", "stop", "length"}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("moment", ["queued", "prefill", "decode", "just finished"])
def test_abort_at_any_moment_gives_every_block_back(moment, depth):
    scheduler = make_scheduler(32, max_num_batched_tokens=8)
    engine = SimulatedEngine(scheduler, depth)
    request = make_request("a", range(20), 5, ignore_eos=True)
    scheduler.add(request)
    for _ in range({"queued": 0, "prefill": 2, "decode": 4, "just finished": 20}[moment]):
        engine.step()
    assert request.finished == (moment == "just finished")
    scheduler.finish(request, "abort")
    scheduler.check()
    other = make_request("b", range(50, 60), 5, ignore_eos=True)
    scheduler.add(other)
    engine.run()
    assert (scheduler.pool.free, scheduler.pool.waiting) == (32, 0)
    assert request.finish_reason == ("length" if moment == "just finished" else "abort")
    check_tokens([request, other])


def test_blocks_of_an_aborted_request_wait_for_its_last_step():
    scheduler = make_scheduler(8)
    request = make_request("a", range(9))
    scheduler.add(request)
    first = scheduler.schedule()
    scheduler.queued(first)
    second = scheduler.schedule()
    scheduler.queued(second)
    scheduler.finish(request, "abort")
    assert (scheduler.pool.free, scheduler.pool.waiting) == (5, 3)
    assert scheduler.update(first, [1]) == [] and scheduler.pool.free == 5
    assert scheduler.update(second, [1]) == [] and scheduler.pool.free == 8
    assert request.output_ids == []


def test_a_token_beyond_the_end_is_thrown_away():
    scheduler = make_scheduler()
    request = make_request("a", [1, 2, 3], stop_token_ids=[9])
    scheduler.add(request)
    steps = []
    for _ in range(2):
        steps.append(scheduler.schedule())
        scheduler.queued(steps[-1])
    assert [(w.start, w.tokens, w.samples) for s in steps for w in s.work] == [
        (0, 3, True), (3, 1, True)]
    assert scheduler.update(steps[0], [9]) == [request] and request.finished
    assert scheduler.update(steps[1], [7]) == [] and request.output_ids == [9]
    assert (request.finish_reason, request.stop_reason) == ("stop", 9)


def test_no_step_is_scheduled_beyond_the_length():
    scheduler = make_scheduler()
    scheduler.add(make_request("a", [1, 2, 3], 2))
    steps = [scheduler.schedule() for _ in range(4)]
    assert [len(step.work) for step in steps] == [1, 1, 0, 0]


def test_a_request_that_needs_its_token_waits_for_it():
    scheduler = make_scheduler()
    request = make_request("a", [1, 2, 3], presence_penalty=0.5)
    scheduler.add(request)
    first = scheduler.schedule()
    assert len(first.work) == 1 and not scheduler.schedule().work
    scheduler.update(first, [4])
    assert scheduler.schedule().work[0][1:] == (3, 1, True)


def test_min_tokens_hold_stop_ids_back():
    scheduler = make_scheduler()
    request = make_request("a", [1], 9, stop_token_ids=[9], min_tokens=2)
    scheduler.add(request)
    for i in range(3):
        assert not request.finished, i
        scheduler.update(scheduler.schedule(), [9])
    assert request.finish_reason == "stop" and request.output_ids == [9, 9, 9]


def test_steps_out_of_order_are_refused():
    scheduler = make_scheduler()
    scheduler.add(make_request("a", [1, 2]))
    first, second = scheduler.schedule(), scheduler.schedule()
    scheduler.update(second, [1])
    with pytest.raises(LifetimeError, match=r"step 1 .* after step 2"):
        scheduler.update(first, [1])
    with pytest.raises(LifetimeError, match=r"2 tokens .*expected 1"):
        scheduler.update(scheduler.schedule(), [1, 2])


@pytest.mark.parametrize(("prompt", "max_tokens", "error", "message"), [
    (0, 5, PromptError, "0 tokens, expected 1 to 64"),
    (65, 5, PromptError, "65 tokens, expected 1 to 64 "),
    (30, 20, OptionError, "30 tokens and 20 new ones need 13 blocks of 4 tokens, the KV cache has "
                          "10; lower max_tokens to at most 11,"),
    (10, None, OptionError, "10 tokens and 55 new ones need 16 blocks")])
def test_what_can_never_fit_is_refused_at_once(prompt, max_tokens, error, message):
    scheduler = make_scheduler(10)
    with pytest.raises(error, match=message):
        scheduler.add(make_request("a", range(prompt), max_tokens))
    assert not scheduler.has_unfinished


def test_the_advised_max_tokens_fit():
    scheduler = make_scheduler(10)
    request = make_request("a", range(30), 11, ignore_eos=True)
    scheduler.add(request)
    SimulatedEngine(scheduler).run()
    assert len(request.output_ids) == 11


def test_a_full_context_ends_with_length():
    scheduler = make_scheduler(16)
    request = make_request("a", range(64), None)
    scheduler.add(request)
    SimulatedEngine(scheduler, 2).run()
    assert request.finish_reason == "length" and len(request.output_ids) == 1


def test_the_queue_is_bounded():
    scheduler = make_scheduler(max_waiting=2)
    for name in "ab":
        scheduler.add(make_request(name, [1]))
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        scheduler.add(make_request("c", [1]))
    scheduler.schedule()
    scheduler.add(make_request("c", [1]))


def test_a_step_holds_a_token_for_each_sequence():
    with pytest.raises(OptionError, match="max_num_batched_tokens is 4, max_num_seqs is 5"):
        make_scheduler(max_num_seqs=5, max_num_batched_tokens=4)


def test_a_request_that_was_refused_can_be_finished():
    scheduler = make_scheduler()
    other, refused = make_request("a", [1]), make_request("b", range(100))
    scheduler.add(other)
    with pytest.raises(PromptError):
        scheduler.add(refused)
    scheduler.finish(refused, "abort")
    assert refused.finished and scheduler.waiting == [other]


def test_statuses():
    scheduler = make_scheduler()
    request = make_request("a", [1, 2], 1)
    seen = [request.status]
    scheduler.add(request)
    step = scheduler.schedule()
    seen.append(request.status)
    scheduler.update(step, [3])
    assert [*seen, request.status] == [Status.WAITING, Status.RUNNING, Status.FINISHED]
    assert "a" in repr(request) and "finished" in repr(request)
