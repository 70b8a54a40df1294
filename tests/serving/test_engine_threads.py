"""An engine with a model, used from several threads, and closed."""

import threading

import pytest

import models
from core.errors import KernelyardError, LifetimeError
from core.runtime.executor import Executor
from models import SamplingParams

MODEL = "stories-llama2"
TEXT = "Once upon a time"
GREEDY = SamplingParams(temperature=0, max_tokens=8)


@pytest.fixture
def engine():
    with models.load_engine(MODEL, max_context=96, max_num_seqs=6) as engine:
        yield engine
        engine.check()
        assert not engine.has_unfinished_requests and engine.pool.free == engine.pool.blocks


def in_threads(*works) -> list[BaseException]:
    """Run functions in threads that begin together. Returns what they raised."""
    start, raised = threading.Barrier(len(works)), []

    def run(work):
        start.wait()
        try:
            work()
        except Exception as error:
            raised.append(error)
    threads = [threading.Thread(target=run, args=(w,), daemon=True) for w in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    return raised


def test_threads(engine):
    """Generate in two threads and step in a third: each has its own outputs, all of them."""
    texts = [TEXT, "The cat and the dog", "One day a fox"]
    alone = {t: engine.generate(t, GREEDY)[0].outputs[0].token_ids for t in texts}
    wrong, stepped = [], {}

    def generating(mine):
        for _ in range(5):
            found = engine.generate(mine, GREEDY)
            wrong.extend(t for t, o in zip(mine, found, strict=True)
                         if o.outputs[0].token_ids != alone[t])

    def stepping():
        for k in range(10):
            engine.add_request(f"s{k}", texts[k % 3], GREEDY)
        while len([o for o in stepped.values() if o.finished]) < 10:
            stepped.update({o.request_id: o for o in engine.step()})
    assert in_threads(lambda: generating(texts), lambda: generating(texts[::-1]), stepping) == []
    assert wrong == [] and set(stepped) == {f"s{k}" for k in range(10)}
    assert all(stepped[f"s{k}"].outputs[0].token_ids == alone[texts[k % 3]] for k in range(10))


def test_a_failure_in_another_thread_is_told(engine, monkeypatch):
    """End the `generate` whose requests a step of another thread has taken along."""
    real, lock, failed = Executor.submit, threading.Event(), []

    def submit(self, batch):
        if threading.current_thread().name == "failing":
            failed.append(0)
            raise KernelyardError("this step fails")
        lock.set()
        return real(self, batch)
    monkeypatch.setattr(Executor, "submit", submit)

    def fail():
        lock.wait(30)
        threading.current_thread().name = "failing"
        engine.step()
    raised = in_threads(lambda: engine.generate(
        [TEXT] * 6, SamplingParams(max_tokens=60, ignore_eos=True)), fail)
    assert failed and {type(e) for e in raised} == {KernelyardError, LifetimeError}


def test_closing():
    engine = models.load_engine(MODEL, max_context=96)
    engine.add_request("a", TEXT, GREEDY)
    engine.step()
    engine.close()
    engine.close()
    assert not engine.has_unfinished_requests
    for call in (engine.step, lambda: engine.generate(TEXT), lambda: engine.add_request("b", TEXT)):
        with pytest.raises(LifetimeError, match="this engine is closed; load it again"):
            call()


def test_closing_while_another_thread_generates(monkeypatch):
    """End its call with an error: it waits for nothing."""
    engine, begun, real = models.load_engine(MODEL, max_context=96), threading.Event(), \
        Executor.submit

    def submit(self, batch):
        begun.set()
        return real(self, batch)
    monkeypatch.setattr(Executor, "submit", submit)

    def close():
        begun.wait(30)
        engine.close()
    raised = in_threads(close, lambda: engine.generate(
        [TEXT] * 200, SamplingParams(max_tokens=80, ignore_eos=True)))
    assert [type(e) for e in raised] == [LifetimeError]
