"""Conformance and the bench at a model's own calls."""

import json

import numpy as np
import pytest
from suspect_backend import with_suspect

from core.conformance.calls import read_calls, write_calls
from core.conformance.cases import Case, cases_of
from core.conformance.inputs import make_inputs
from core.conformance.runner import run_case
from core.errors import OpError, OptionError
from core.installed.registry import Registry, default_registry
from core.ir.examples import ExampleInputs
from core.ir.op import OPS
from core.plugins.kernel import Kernel
from core.tensor.dtype import f32, i32
from core.tensor.tensor import TensorSpec
from models import bench, conform
from models.analysis.calls import model_calls
from models.checkpoints.base import read_checkpoint
from models.engine.options import LoadOptions

MODEL = "stories-qwen2"


def calls_of(**options):
    registry = default_registry()
    return model_calls(read_checkpoint(MODEL, registry), LoadOptions(**options), registry,
                       "cpu_numpy", sequences=8)


def test_a_models_calls_are_told_apart_and_can_be_stored(tmp_path):
    calls = calls_of()
    names = [(c.op, c.name) for c in calls]
    assert len(set(names)) == len(names)
    assert {"attention", "linear", "sample", "qkv_linear", "rope_kv_write"} <= {
        c.op for c in calls}
    longest = max(c.context for c in calls)
    assert {c.phase for c in calls} == {"decode", "prefill"} and longest == 2048
    write_calls(tmp_path / "calls.json", calls)
    assert read_calls(tmp_path / "calls.json") == calls


def test_an_engines_steps_are_among_them():
    found = {(c.op, c.phase, c.specs["query_starts" if c.op == "attention" else "logits"].sizes[0])
             for c in calls_of() if c.op in ("attention", "adjust_logits", "log_probs", "sample")}
    assert {("attention", "decode", 9), ("attention", "prefill", 9), ("attention", "decode", 2),
            ("sample", "decode", 8)} <= found
    assert {op for op, _, rows in found if rows == 8} == {"adjust_logits", "log_probs", "sample"}
    assert {"pick_ids", "put_tokens"} <= {c.op for c in calls_of()}


@pytest.mark.parametrize("text", ["{", "[]x", '[{"op": "nope"}]', "[3]", '{"a": 1}',
                                  '[{"op": "add", "phase": "decode", "inputs": [], "attrs": [], '
                                  '"context": 0, "nodes": 1}]'])
def test_a_bad_file_of_calls_is_an_error(tmp_path, text):
    (tmp_path / "calls.json").write_text(text)
    with pytest.raises(OptionError, match=r"--calls .*expected a file that"):
        read_calls(tmp_path / "calls.json")


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"quantize": "int4"},
                                     {"kv_dtype": "i8"}])
def test_inputs_are_right_for_every_call(options):
    """The op's own check of values takes them, and the installed kernel is right at them."""
    registry = default_registry()
    for call in calls_of(max_context=64, **options):
        case = call.case("cpu_numpy")
        case.op.check_values(case.arrays)
        for kernel in registry.kernels("cpu_numpy", call.op):
            if kernel.refuses(case.call) is None:
                outcome = run_case(case, kernel, registry, case.expected)
                assert outcome.ok, (call.name, str(outcome))


def test_a_fault_that_needs_two_sequences_is_found():
    def second_sequence(ins, outs):
        starts, lengths = ins[4], ins[5]
        if np.count_nonzero(lengths) > 1:
            outs[0][starts[1]] = 0
    registry = with_suspect(OPS["attention"], lambda array: None, second_sequence)
    (kernel,) = registry.kernels("suspect", "attention")
    found = {}
    for call in calls_of(max_context=64, dtype="f32"):
        if call.op == "attention":
            case = call.case("suspect")
            found[len(case.arrays["seq_lens"])] = run_case(case, kernel, registry,
                                                           case.expected).ok
    assert found == {1: True, 8: False}


def test_an_integer_of_unknown_meaning_is_refused():
    with pytest.raises(OpError, match="what its integer input `a` means is not known"):
        make_inputs(OPS["add"], {"a": TensorSpec((2,), i32)}, {}, 0,
                    ExampleInputs(np.random.default_rng(0)))


@pytest.mark.parametrize("op", ["embedding", "quantized_embedding", "block_embedding"])
def test_ids_are_rows_of_the_table(op):
    """Make ids for tables of less than 1000 rows, in numbers and in codes."""
    case = next(c for c in cases_of(default_registry().kernels("cpu_numpy", op)[0])
                if c.arrays["ids"].size > 2)
    rows = len(case.arrays.get("table", case.arrays.get("codes")))
    found = make_inputs(OPS[op], case.call.inputs, case.attrs, 8,
                        ExampleInputs(np.random.default_rng(0)))
    assert found["ids"].min() >= 0 and 2 < found["ids"].max() < rows < 1000
    OPS[op].check_values(found)


def conformed(capfd, *arguments):
    code = conform.main(["--backend", "cpu_numpy", "--model", MODEL, "--max-context", "64",
                         "--op", "attention,rope", *arguments])
    return code, capfd.readouterr().out


def test_conform_takes_a_model(capfd, tmp_path):
    code, text = conformed(capfd, "--calls", str(tmp_path / "calls.json"), "--repeat", "3")
    assert code == 0, text
    assert "attention " in text and "pass" in text and "not yet run" not in text
    assert len(read_calls(tmp_path / "calls.json")) > 10


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--repeat", "1"], "expected at least 2 runs"),
    (["--report", "x.md"], "--report is about the ops' examples"),
    (["--calls", "/nowhere/calls.json"], "/nowhere/calls.json cannot be written: No such file"),
    (["--large"], "--large is about the ops' examples")])
def test_bad_options_with_a_model(capfd, arguments, complaint):
    code = conform.main(["--backend", "cpu_numpy", "--model", MODEL, *arguments])
    captured = capfd.readouterr()
    assert code == 2 and complaint in captured.out + captured.err


def test_options_of_a_model_need_one(capfd):
    assert conform.main(["--backend", "cpu_numpy", "--kv-dtype", "i8"]) == 2
    assert "go with --model" in capfd.readouterr().err


def test_more_runs_find_a_race():
    """A kernel that is wrong in one run of five passes two runs."""
    registry, count = Registry(), [0]

    def add(a, b, out):
        def launch():
            np.add(a, b, out)
            count[0] += 1
            if count[0] % 5 == 0:
                out[0, 0] += 1
        return launch
    kernel = Kernel("add", "cpu_numpy", "racy", add, {"A": (f32,)})
    registry.kernels("cpu_numpy", "add").append(kernel)
    registry.sources[kernel] = "test"
    example = next(e for e in OPS["add"].examples() if e.name == "T17_D896")
    case = Case(OPS["add"], "cpu_numpy", {"A": f32}, example)
    assert run_case(case, kernel, registry, case.expected).ok
    count[0] = 0
    found = run_case(case, kernel, registry, case.expected, 6)
    assert not found.ok and "6 runs gave 2 results that differ in bits" in str(found)
    loose = Kernel("add", "cpu_numpy", "loose", add, {"A": (f32,)}, deterministic=False)
    registry.kernels("cpu_numpy", "add").append(loose)
    registry.sources[loose] = "test"
    count[0] = 0
    assert not run_case(case, loose, registry, case.expected, 6).ok  # the wrong run is judged


BENCH = ["--model", MODEL, "--prompt", "20", "--tokens", "8", "--repeat", "2"]


def test_the_bench_times_and_judges_every_kernel_at_a_models_calls(capsys):
    pytest.importorskip("cpu_numba", reason="needs ./backends/cpu_numba")
    assert bench.main([*BENCH, "--op", "attention,rope", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    timed = [r for r in rows if r["seconds"] is not None]
    assert {"cpu_numpy", "cpu_numba"} <= {r["backend"] for r in timed}
    assert {r["phase"] for r in timed} == {"decode", "prefill"}
    assert {r["op"] for r in timed} == {"attention", "rope"}
    for row in timed:
        assert row["ok"] and row["bytes_per_s"] == row["nbytes"] / row["seconds"] > 0
        assert row["flops_per_s"] == row["flops"] / row["seconds"] > 0
    assert all(r["refused"] for r in rows if r["seconds"] is None)


def test_the_bench_names_a_wrong_kernel(capsys, monkeypatch):
    (kernel,) = default_registry().kernels("cpu_numpy", "rope")
    monkeypatch.setitem(kernel.__dict__, "bind", lambda *arrays, **attrs: lambda: None)
    assert bench.main([*BENCH, "--op", "rope", "--backend", "cpu_numpy"]) == 1
    assert "WRONG" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--op", "nonsense"], "unknown op 'nonsense'"),
    (["--op", "softmax"], "the model has no call of it; it has add, "),
    (["--op", "add", "--no-fusion"], "--no-fusion chooses among kernels"),
    (["--op", "add", "--profile"], "--profile chooses among kernels of a plan")])
def test_bad_options_of_the_bench(capsys, arguments, complaint):
    assert bench.main([*BENCH, *arguments]) == 2
    assert complaint in capsys.readouterr().err
