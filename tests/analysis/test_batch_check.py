"""Tests that what a benchmark of many sequences checks are steps of as many."""

from models import bench
from models.analysis import batch_bench


def test_steps_of_few_and_of_many_sequences_are_checked():
    assert batch_bench._checked([]) == [1, 24]
    assert batch_bench._checked([8, 64]) == [1, 8, 24]
    assert batch_bench._checked([66, 128]) == [1, 24, 66, 72]


def test_all_sequences_of_a_checked_step_are_in_it(monkeypatch, capsys):
    rows, check = set(), batch_bench.check_engine

    def seen(engine, registry, lengths, temperature):
        found = check(engine, registry, lengths, temperature)
        rows.update((len(lengths), b.call.dims["S"]) for plan in engine.executor.steps.made
                    for b in plan.bindings if b.node.op.name == "attention")
        return found
    monkeypatch.setattr(batch_bench, "check_engine", seen)
    assert bench.main(["--model", "stories-llama2", "--backend", "cpu_numpy", "--batch", "6",
                       "--prompt", "4", "--tokens", "2"]) == 0
    assert {(1, 1), (6, 8)} <= rows
