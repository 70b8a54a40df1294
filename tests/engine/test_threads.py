"""Threads share one model: whole calls wait for each other, and no call gives wrong numbers."""

import threading

import numpy as np
import pytest

import models
from core.errors import LifetimeError

PROMPTS = ["Once upon a time", "One day a fox", "The cat and the dog", "There was a little"]


def in_threads(count, work):
    """Run work(thread number) in `count` threads that begin together; returns what they raised."""
    start, raised = threading.Barrier(count), []

    def run(i):
        start.wait()
        try:
            work(i)
        except Exception as error:  # shown by the caller's assertion
            raised.append(error)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads)
    return raised


@pytest.fixture(scope="module", params=["cpu_numpy", "cpu_numba,cpu_numpy"])
def model(request):
    pytest.importorskip(request.param.partition(",")[0], reason="the backend is not installed")
    with models.load("stories-llama2", backend=request.param) as loaded:
        yield loaded


@pytest.mark.parametrize("count", [2, 3, 8])
def test_calls_from_threads_give_what_they_give_alone(model, count):
    ids = [model.encode(p) for p in PROMPTS]
    logits = [model.logits(i) for i in ids]
    texts = [model.generate(i, max_new_tokens=12, temperature=0.9, seed=n).run().text
             for n, i in enumerate(ids)]
    wrong = []

    def work(thread):
        for k in range(200 // count // 2):
            n = (thread + k) % len(ids)
            if not np.array_equal(model.logits(ids[n]), logits[n]):
                wrong.append("logits")
            if model.generate(ids[n], max_new_tokens=12, temperature=0.9, seed=n
                              ).run().text != texts[n]:
                wrong.append("text")
    assert in_threads(count, work) == [] and wrong == []


def test_a_loop_over_pieces_is_right_or_raises(model):
    """Iterating gives the lock back between tokens: an overtaken loop says so."""
    expected = [model.generate(p, max_new_tokens=12).run().text for p in PROMPTS]
    done, wrong = [], []

    def work(thread):
        for _ in range(10):
            generation = model.generate(PROMPTS[thread], max_new_tokens=12)
            try:
                text = "".join(generation)
            except LifetimeError:
                continue
            done.append(thread)
            if text != expected[thread]:
                wrong.append(text)
    assert in_threads(4, work) == [] and wrong == []
    assert model.generate(PROMPTS[0], max_new_tokens=12).run().text == expected[0]


def test_closing_from_another_thread_is_our_error():
    model = models.load("stories-llama2", max_context=64)
    expected = model.generate("Once", max_new_tokens=30).run().text
    texts, raised = [], []

    def loop():
        try:
            for _ in range(1000):
                texts.append(model.generate("Once", max_new_tokens=30).run().text)
        except LifetimeError as error:
            raised.append(str(error))
    thread = threading.Thread(target=loop)
    thread.start()
    while len(texts) < 2:
        pass
    model.close()
    model.close()
    thread.join(60)
    assert not thread.is_alive() and set(texts) == {expected}
    assert raised == ["this session is closed; load the model again"]


def test_closing_inside_a_loop_is_our_error():
    model = models.load("stories-llama2", max_context=64)
    with pytest.raises(LifetimeError, match="this session is closed"):
        for _ in model.generate("Once", max_new_tokens=30):
            model.close()
