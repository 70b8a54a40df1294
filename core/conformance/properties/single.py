"""State the properties of single ops: rope, softmax, quantized_linear, those with weights."""

from __future__ import annotations

import numpy as np

from core.conformance.cases import dtype_id
from core.conformance.properties.rows import small_examples, take_rows
from core.conformance.properties.subject import Draws, Refused, Subject
from core.errors import NoKernelError
from core.ir.examples import ExampleInputs
from core.ir.op import OPS
from core.ops.quantized_linear import expand_weight
from core.runtime.run_op import run_kernel, run_reference

WIDE = 16  # elements: kernels that load many at once take rows of whole such runs


def relative_positions(subject: Subject, draws: Draws) -> None:
    """rope(q, m)·rope(k, n) depends on m - n alone, up to what the angles' rounding allows."""
    size, far = draws.choice((64, 8, 128)), draws.choice((0, 1, 300, 4000))
    m, n = draws.integer(0, 100), draws.integer(0, 100)
    q, k = np.random.default_rng(draws.integer(0, 2**32 - 1)).standard_normal((2, size))
    freq = 10000.0 ** (-np.arange(0, size, 2) / size)
    case = subject.case({
        "x": np.stack([q, k, q, k])[:, None],
        "positions": np.array([m, n, m + far, n + far], np.int32), "inv_freq": freq},
        {"interleaved": draws.choice((False, True))})
    x = case.arrays["x"]
    out = subject.run(case)["out"]
    assert x is not None and out is not None  # rope's are not optional
    rows = out.astype(np.float64)[:, 0]
    before, after = rows[0] @ rows[1], rows[2] @ rows[3]
    length = float(np.prod([np.linalg.norm(v[0].astype(np.float64)) for v in x[:2]]))
    bound = length * (4 * (max(m, n) + far + 4) * 2.0**-24 + 2 * subject.dtypes["A"].eps)
    assert abs(before - after) <= bound, (
        f"positions {m}, {n}: {before:.6g}; {far} further on: {after:.6g}, expected equal within "
        f"{bound:.1e}, head size {size}")


def shifting(subject: Subject, draws: Draws) -> None:
    """Use values in eighths, so that adding a whole number rounds nothing in any dtype."""
    rows, width, shift = draws.integer(1, 5), draws.integer(1, 300), draws.integer(-7, 7)
    rng = np.random.default_rng(draws.integer(0, 2**32 - 1))
    x = rng.integers(-64, 65, (rows, width)) / 8
    plain = subject.run(subject.case({"x": x}, {}))
    case = subject.case({"x": x + shift}, {})
    subject.agree(case, subject.run(case), plain)


def expanding(subject: Subject, draws: Draws) -> None:
    """Compare with the backend's own linear on the expanded weights, or the reference's."""
    bits = 8 if subject.dtypes["Q"].short == "i8" else 4
    t, n, k = draws.choice((1, 2, 5, 20)), draws.integer(1, 70), draws.integer(1, 300)
    group = draws.choice((32, 64, 2, 48, 7))
    r, groups = ExampleInputs(np.random.default_rng(draws.integer(0, 2**32 - 1))), -(-k // group)
    zeros = r.ints(0, 16, n, groups).astype(np.float64) if draws.choice((False, True)) else None
    case = subject.case({
        "x": r.normal(t, k), "codes": r.codes(bits, n, k),
        "scales": (0.5 + abs(r.normal(n, groups))) * k**-0.5 / (64 if bits == 8 else 4),
        "zeros": zeros, "bias": r.normal(n) if draws.choice((False, True)) else None},
        {"bits": bits, "group_size": group})
    x, codes, scales, zeros, bias = case.arrays.values()
    assert x is not None and codes is not None and scales is not None  # made above
    arrays = {"x": x, "weight": expand_weight(codes, scales, zeros, bits, group, k),
              "bias": None if bias is None else bias.astype(np.float32)}
    linear, attrs = OPS["linear"], {"out_dtype": subject.dtypes["O"].short}
    found = subject.run(case)
    try:
        (wanted,) = run_kernel(linear, arrays, attrs, backend=subject.kernel.backend,
                               registry=subject.registry)
    except NoKernelError:
        (wanted,) = run_reference(linear, arrays, attrs)
    subject.agree(case, found, {"out": wanted})


def mapping_weights(subject: Subject, draws: Draws) -> None:
    """Compare with weights as a file's memory map has them: read-only, at any address that their
    elements are aligned to. A GPU's weights are copies."""
    allocator = subject.registry.backend(subject.kernel.backend).allocator
    if allocator.borrow_host(np.zeros(1)) is None:
        raise Refused(f"{allocator.device} has weights in memory of its own")
    found = small_examples(subject.op, dtype_id(subject.dtypes), tuple(subject.dtypes.items()))
    if not found:
        raise Refused(f"{subject.op.name} has no small sample")
    every = [(e, e.make(ExampleInputs(np.random.default_rng(0)))) for e in found]
    example, made = next((pair for pair in every if all(
        a.shape[-1] % WIDE == 0 for k in subject.op.weight_params
        if (a := pair[1].get(k)) is not None)), every[0])
    arrays = {p.name: made.get(p.name) for p in subject.op.sig.params}
    if draws.choice((False, True)):  # some kernels are for a few rows
        arrays = take_rows(subject.op, arrays, np.arange(2))
    case = subject.case(arrays, example.attrs)
    subject.agree(case, subject.run(case, mapped=True), subject.run(case))
