"""quantized_linear: defines a product with a matrix of integer codes and scales by group."""

from typing import ClassVar

import numpy as np

from core.errors import OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.op import Attr, Attrs, Env, need, out_dtype
from core.ir.tolerance import Tolerance
from core.ops.linear import Product
from core.ops.published import GROUPS, LONGEST_T, products
from core.tensor.tensor import Array


def unpack_codes(codes: Array, bits: int, columns: int) -> Array:
    """Return codes as int16 [N, columns]: int8 as they are, packed ones low nibble first."""
    if bits == 8:
        return codes.astype(np.int16)
    both = np.stack([codes & 15, codes >> 4], axis=-1).astype(np.int16)
    return both.reshape(len(codes), 2 * codes.shape[1])[:, :columns]


def expand_weight(codes: Array, scales: Array, zeros: Array | None, bits: int, group_size: int,
                  columns: int) -> Array:
    """Return the matrix [N, columns] in the dtype of `scales`: scale * (code - zero)."""
    group = np.arange(columns) // group_size
    code = unpack_codes(codes, bits, columns).astype(scales.dtype)
    zero = (0 if bits == 8 else 8) if zeros is None else zeros[:, group]
    return scales[:, group] * (code - zero)


def check_groups(op: str, env: Env, attrs: Attrs, k: int | str) -> None:
    """Raise OpError unless codes and scales are those of rows of `k` columns."""
    bits, group = attrs["bits"], attrs["group_size"]
    need(bits in (4, 8), f"{op}: bits is {bits}, expected 4 or 8")
    need(group > 0, f"{op}: group_size is {group}, expected > 0")
    expected = "i8" if bits == 8 else "i4x2"
    need(env.dtypes["Q"].short == expected,
         f"{op}: codes are {env.dtypes['Q']}, expected {expected} for {bits} bits")
    packed, groups = env.dims["P"], env.dims["G"]
    if isinstance(k, int):
        width, count = (k if bits == 8 else -(-k // 2)), -(-k // group)
        need(packed == width, f"{op}: codes have {packed} bytes a row, expected {width} for {k} "
             f"columns at {bits} bits", ShapeError)
        need(groups == count, f"{op}: scales have {groups} groups a row, expected {count} for {k} "
             f"columns in groups of {group}", ShapeError)


class QuantizedLinear(Product):
    """Computes out = x @ w.T + bias with w[n,k] = scales[n,k//G] * (codes[n,k] - zeros[n,k//G]).

    8 bits: codes i8 [N,K], zero 0 unless given. 4 bits: codes i4x2 [N,ceil(K/2)] holding 0..15,
    zero 8 unless given. The last group of a row is short when group_size does not divide K.
    """

    name = "quantized_linear"
    signature = ("x A[T,K], codes Q[N,P], scales f32[N,G], zeros f32[N,G]?, bias B[N]? "
                 "-> out O[T,N]")
    attributes: ClassVar = {"bits": Attr(int), "group_size": Attr(int),
                            "out_dtype": Attr(str, None, structural=True)}
    dtype_cases = (*({"A": a, "Q": q, "B": a, "O": o} for q in ("i8", "i4x2") for a, o in
                     (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("bf16", "f32"))),
                   {"A": "f32", "Q": "i8", "B": "bf16", "O": "f32"})
    tolerance = Tolerance(8, 4, "as linear; scaling after the sum of a group instead of before it "
                          "changes one rounding a group")

    def check(self, env: Env, attrs: Attrs) -> None:
        check_groups(self.name, env, attrs, env.dims["K"])
        env.dtypes.setdefault("B", env.dtypes["A"])
        out_dtype(env, attrs)

    def reference(self, x: Array, codes: Array, scales: Array, zeros: Array | None,
                  bias: Array | None, *, bits: int, group_size: int) -> Array:
        weight = expand_weight(codes, scales.astype(x.dtype), zeros, bits, group_size, x.shape[1])
        out = x @ weight.T
        return out if bias is None else out + bias

    def examples(self) -> list[Example]:
        def product(t: int, n: int, k: int, bits: int, group: int, zeros: bool = False,
                    bias: bool = False, large: bool = False) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                groups = -(-k // group)
                scales = (0.5 + abs(r.normal(n, groups))) * k**-0.5 / (64 if bits == 8 else 4)
                zero = r.ints(0, 16, n, groups).astype(np.float64) if zeros else None
                return {"x": r.normal(t, k), "codes": r.codes(bits, n, k), "scales": scales,
                        "zeros": zero, "bias": r.normal(n) if bias else None}
            tail = ("_zeros" if zeros else "") + ("_bias" if bias else "")
            return Example(f"T{t}_N{n}_K{k}_g{group}{tail}", make,
                          {"bits": bits, "group_size": group}, large,
                          only={"Q": "i8" if bits == 8 else "i4x2"})
        return [product(0, 4, 64, 8, 64), product(1, 2048, 2048, 8, 64), product(1, 5, 100, 8, 64),
                product(17, 352, 128, 8, 64, False, True), product(2, 64, 256, 8, 32, True),
                product(1, 2048, 2048, 4, 128), product(1, 5, 33, 4, 32), product(0, 4, 64, 4, 32),
                product(17, 96, 256, 4, 128, True, True), product(64, 33, 130, 4, 64),
                product(64, 130, 320, 8, 64),
                # so many tiles that a GPU's kernel may take large ones, and little work for a CPU
                product(65, 4100, 80, 8, 32),
                product(65, 4100, 256, 4, 128, True),
                *(product(LONGEST_T, 64, 128, bits, group) for bits, group in GROUPS),
                *(product(1, p.rows, p.columns, bits, group, bits == 4, p.bias, p.large)
                  for p in products() for bits, group in GROUPS
                  if (p.rows, p.columns) != (2048, 2048))]

    def error_examples(self) -> list[ErrorExample]:
        good = {"x": spec("f32[2,64]"), "codes": spec("i8[3,64]"), "scales": spec("f32[3,1]")}
        attrs = {"bits": 8, "group_size": 64}
        return [ErrorExample(good, {"bits": 3, "group_size": 64}, OpError, "bits is 3"),
                ErrorExample(good, {"bits": 4, "group_size": 64}, OpError, "i4x2"),
                ErrorExample({**good, "codes": spec("i8[3,63]")}, attrs, ShapeError, "bytes a row"),
                ErrorExample({**good, "scales": spec("f32[3,2]")}, attrs, ShapeError, "groups"),
                ErrorExample(good, {"bits": 8, "group_size": 0}, OpError, "group_size")]
