"""Every op's parts agree with each other, over its examples.

What `infer` says is what the reference gives, and the reference changes only what the signature and
`writes` allow.
"""

import numpy as np
import pytest

from core.conformance.cases import Case, cells, dtype_id, examples_of
from core.errors import OpError
from core.installed.registry import default_registry
from core.ir.op import OPS

default_registry()  # brings the plugins' ops into OPS

SMALL = 1 << 15  # elements of a case's inputs


def cases(op):
    """Yield each example of an op with each of its dtypes, but for the large ones: sizes change
    nothing here."""
    found = 0
    for dtypes in cells(op):
        for example in examples_of(op, dtypes):
            case = Case(op, "none", dtypes, example)
            if sum(a.size for a in case.arrays.values() if a is not None) <= SMALL:
                found += 1
                yield case
    assert found, f"{op.name} has no small example"


def computed(case, compute):
    """Return (inputs before, inputs after, results by name) of the plain reference: nothing
    protects its inputs here, as `Op.inputs_in` does."""
    op, attrs = case.op, case.op.complete(case.attrs)
    given = {k: None if a is None else np.array(
        a.astype(compute) if a.dtype.kind not in "iu" else a) for k, a in case.arrays.items()}
    after = {k: None if a is None else a.copy() for k, a in given.items()}
    result = op.reference(*after.values(), **{k: attrs[k] for k in op.plain_attributes})
    results = result if isinstance(result, tuple) else (result,)
    return given, after, dict(zip(op.result_names, results, strict=True))


@pytest.mark.parametrize("name", OPS)
def test_infer_is_what_the_reference_gives(name):
    op = OPS[name]
    for case in cases(op):
        where = f"{dtype_id(case.dtypes)}-{case.example.name}"
        specs = op.infer(case.call.inputs, op.complete(case.attrs))
        assert list(specs) == [p.name for p in op.sig.outputs]
        for compute in (np.float64, np.float32):
            with np.errstate(all="ignore"):
                given, _, results = computed(case, compute)
            assert list(results) == list(op.result_names)
            for key, array in results.items():
                if key in op.sig.mutated:
                    assert (array is None) == (given[key] is None), where
                    wanted = given[key]
                    shape, dtype = (None, None) if wanted is None else (wanted.shape, wanted.dtype)
                else:
                    shape = specs[key].sizes
                    dtype = np.dtype(compute if specs[key].dtype.is_float else
                                     specs[key].dtype.numpy)
                if array is not None:
                    assert array.shape == shape, (where, key)
                    assert array.dtype == dtype, (where, key)


@pytest.mark.parametrize("name", OPS)
def test_the_reference_changes_only_what_it_says(name):
    op = OPS[name]
    for case in cases(op):
        with np.errstate(all="ignore"):
            given, after, results = computed(case, np.float32)
        places = op.writes(given) if op.sig.mutated else {}
        assert set(places) <= set(op.sig.mutated)
        for key, old in given.items():
            if old is None:
                continue
            now = (results[key] if key in op.sig.mutated else after[key]).copy()
            if key in op.sig.mutated:
                now[places.get(key, ...)] = old[places.get(key, ...)]
            assert now.tobytes() == old.tobytes(), (case.id, key)
        for key in {p.name for p in op.sig.outputs}:
            assert not any(np.shares_memory(results[key], a) for a in after.values()
                           if a is not None and results[key] is not None), (case.id, key)


def test_the_checks_can_fail():
    from core.ir.examples import Example
    from core.ir.op import Op
    from core.ir.tolerance import Tolerance

    class Bad(Op):
        name = "bad"
        signature = "x A[T,D] -> out A[T,D]"
        dtype_cases = ({"A": "f32"},)
        tolerance = Tolerance(1, 1, "for tests")

        def reference(self, x):
            x[0, 0] += 1
            return x[:1]

        def examples(self):
            return [Example("one", lambda r: {"x": r.normal(2, 3)}, {})]

        def error_examples(self):
            return []
    OPS["bad"] = Bad()
    try:
        for check in (test_infer_is_what_the_reference_gives,
                      test_the_reference_changes_only_what_it_says):
            with pytest.raises(AssertionError):
                check("bad")
    finally:
        del OPS["bad"]


@pytest.mark.parametrize("name", OPS)
def test_infer_refuses_what_is_missing(name):
    op = OPS[name]
    case = next(cases(op))
    required = [p.name for p in op.sig.params if not p.optional]
    for missing in required:
        with pytest.raises(OpError, match=rf"`{missing}`"):
            op.infer({k: v for k, v in case.call.inputs.items() if k != missing},
                     op.complete(case.attrs))
