"""The matrix fails when a kernel is wrong. Each mutant is one classic mistake in a right kernel."""

from functools import partial

import numpy as np
import pytest
from plain_attention import attention
from signatures import taking_all

from core.conformance.cases import matrix
from core.conformance.runner import run_case
from core.installed.registry import Registry
from core.ir.op import OPS
from core.plugins.kernel import Kernel
from core.tensor.dtype import as_dtype


def without_scale(*arrays, scale):
    return attention(*arrays, scale=1.0)


def swapped_layout(bind):
    return lambda *arrays, interleaved, **rest: bind(*arrays, interleaved=not interleaved, **rest)


def without_eps(bind):
    return lambda *arrays, eps: bind(*arrays, eps=0.0)


def unsigned_codes(bind):
    return lambda x, codes, *rest, **attrs: bind(x, codes.view(np.uint8), *rest, **attrs)


MUTANTS = {
    "attention: control, correct": ("attention", lambda bind: attention, True),
    "attention: sees one key too many": ("attention", lambda bind: partial(attention, extra_key=1),
                                         False),
    "attention: misses its own key": ("attention", lambda bind: partial(attention, extra_key=-1),
                                      False),
    "attention: KV head mapped wrongly": ("attention",
                                          lambda bind: partial(attention, wrong_head=True), False),
    "attention: no 1/sqrt(d)": ("attention", lambda bind: without_scale, False),
    "rope: control, correct": ("rope", lambda bind: bind, True),
    "rope: layouts swapped": ("rope", swapped_layout, False),
    "rms_norm: no eps": ("rms_norm", without_eps, False),
    "add_rms_norm: no eps": ("add_rms_norm", without_eps, False),
    "quantized_linear: codes read as unsigned": ("quantized_linear", unsigned_codes, False),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_matrix_catches(name):
    op, mutate, correct = MUTANTS[name]
    registry = Registry()
    kernel = registry.kernels("cpu_numpy", op)[0]
    mutant = Kernel(op, "cpu_numpy", "mutant", taking_all(OPS[op], mutate(kernel.bind)),
                    kernel.dtypes, workspace=None if op == "attention" else kernel.workspace)
    registry._kernels["cpu_numpy"][op].append(mutant)
    registry.sources[mutant] = "test"
    with np.errstate(all="ignore"):
        outcomes = [run_case(case, mutant, registry, case.expected)
                    for case in matrix(registry, "cpu_numpy")
                    if case.op.name == op and case.example]
    assert len(outcomes) > 4
    wrong = [o for o in outcomes if not o.ok]
    assert bool(wrong) != correct, "\n".join(map(str, wrong)) or f"no case notices {name}"


def test_stray_writes_and_changed_inputs_are_caught():
    def beyond(a, b, out):
        wide = np.lib.stride_tricks.as_strided(out, (out.size + 1,), (4,))
        return lambda: (np.add(a, b, out=out), wide.__setitem__(-1, 1.0))

    def scribbles(a, b, out):
        return lambda: (np.add(a, b, out=out), np.multiply(a, 2, out=a))

    def forgets(a, b, out):
        return lambda: np.add(a[:-1], b[:-1], out=out[:-1])

    def random(a, b, out):
        return lambda: np.add(a, b * np.float32(1 + np.random.rand()), out=out)

    registry = Registry()
    registry.kernels("cpu_numpy", "add")
    case = next(c for c in matrix(registry, "cpu_numpy") if c.op.name == "add" and c.example
                and c.example.name == "T17_D896")
    (real,) = registry.kernels("cpu_numpy", "add")
    for bad, complaint in ((beyond, "wrote 4 bytes beyond `out`"),
                           (scribbles, "changed its input `a`: "),
                           (forgets, "NaN or Inf pattern"), (random, "differ in bits")):
        mutant = Kernel("add", "cpu_numpy", bad.__name__, bad, real.dtypes)
        registry._kernels["cpu_numpy"]["add"].append(mutant)
        registry.sources[mutant] = "test"
        outcome = run_case(case, mutant, registry, case.expected)
        assert not outcome.ok and complaint in str(outcome), str(outcome)


def early(op):
    """Return kernels that compute when they bind, as if inputs never changed from step to step."""
    def bind(*arrays, workspace=None, **attrs):
        real = Registry().kernels("cpu_numpy", op)[0]
        keywords = {**attrs, **({} if workspace is None else {"workspace": workspace})}
        with np.errstate(all="ignore"):
            real.bind(*arrays, **keywords)()
        result = arrays[-1].copy()
        return lambda: np.copyto(arrays[-1], result)
    return bind


@pytest.mark.parametrize("op", ["add", "rms_norm", "swiglu"])
def test_kernels_that_compute_too_early_are_caught(op):
    assert not outcomes_of(op, early(op), {})[0]


def test_kernels_that_write_to_their_weights_are_caught():
    def bind(x, weight, bias, out, *, workspace):
        return lambda: (np.matmul(x, weight.T, out=out), weight.__setitem__(0, 7))
    ok, text = outcomes_of("linear", bind, {"A": "f32", "W": "f32", "O": "f32"})
    assert not ok and "changed its input `weight`: " in text


def outcomes_of(op, bind, dtypes):
    """Return (whether every case passes, what was said) for a kernel put beside cpu_numpy's own."""
    registry = Registry()
    real = registry.kernels("cpu_numpy", op)[0]
    taken = {k: (as_dtype(d),) for k, d in dtypes.items()} or real.dtypes
    mutant = Kernel(op, "cpu_numpy", "mutant", taking_all(OPS[op], bind), taken,
                    workspace=real.workspace)
    registry._kernels["cpu_numpy"][op].append(mutant)
    registry.sources[mutant] = "test"
    cases = [c for c in matrix(registry, "cpu_numpy") if c.op.name == op and c.example
             and mutant.refuses(c.call) is None]
    assert len(cases) > 4
    with np.errstate(all="ignore"):
        outcomes = [run_case(case, mutant, registry, case.expected) for case in cases]
    return all(o.ok for o in outcomes), "\n".join(str(o) for o in outcomes if not o.ok)


def emulated(op, before=None, after=None):
    """Make a correct 16-bit kernel: float32 arithmetic, results rounded once. `before` may change
    the widened inputs and `after` the result, to make a mutant of it."""
    real = Registry().kernels("cpu_numpy", op)[0]
    names = [*(p.name for p in OPS[op].sig.params), *(p.name for p in OPS[op].sig.outputs)]

    def bind(*arrays, **keywords):
        # copies of everything, so that a fault shows in the result and not as a changed input
        wide = [None if a is None else np.zeros(a.shape, np.float32 if a.dtype.itemsize == 2
                                                else a.dtype) for a in arrays]
        if op == "rms_norm":  # it widens its weight when it binds
            wide[1][:] = arrays[1]
        run = real.bind(*wide, **keywords)

        def launch():
            for a, w in zip(arrays, wide, strict=True):
                if a is not None:
                    np.copyto(w, a)
            if before:
                before(dict(zip(names, wide, strict=True)))
            run()
            if after:
                after(wide[-1])
            for name, a, w in zip(names, arrays, wide, strict=True):
                if name in {p.name for p in OPS[op].sig.outputs}:
                    np.copyto(a, w, casting="unsafe")
        return launch
    return bind


HALVES = {  # op: what is wrong -> what happens to the inputs, to the result
    "linear": {"nothing": (None, None),
               "last column left out": (lambda x: x["x"].__setitem__((..., -1), 0), None),
               "2 % too large": (None, lambda out: np.multiply(out, 1.02, out=out))},
    "rms_norm": {"nothing": (None, None),
                 "2 % too large": (None, lambda out: np.multiply(out, 1.02, out=out)),
                 "small inputs flushed": (
                     lambda x: x["x"].__setitem__(abs(x["x"]) < 0.05, 0), None)},
    "swiglu": {"nothing": (None, None),
               "wrong slope": (lambda x: np.multiply(x["up"], 1 + 0.02 * np.tanh(x["gate"]),
                                                     out=x["up"]), None)},
    "softmax": {"nothing": (None, None),
                "last term left out": (lambda x: x["x"].__setitem__((..., -1), -80), None)},
    "rope": {"nothing": (None, None),
             "angle 2 % off": (
                 lambda x: np.multiply(x["inv_freq"], 1.02, out=x["inv_freq"]), None)},
    "attention": {"nothing": (None, None),
                  "last key left out": (lambda x: x["seq_lens"].__setitem__(
                      x["seq_lens"] > 1, x["seq_lens"][x["seq_lens"] > 1] - 1), None)},
}


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize(("op", "fault"), [(op, f) for op, fs in HALVES.items() for f in fs])
def test_16_bit_budgets(op, fault, dtype):
    """A correct 16-bit kernel must pass, and one that is off by a few percent must not."""
    before, after = HALVES[op][fault]
    variables = {p.dtype for p in (*OPS[op].sig.params, *OPS[op].sig.outputs)
                 if p.dtype_is_variable}
    ok, text = outcomes_of(op, emulated(op, before, after), dict.fromkeys(variables, dtype))
    assert ok == (fault == "nothing"), text or "every case passes"
