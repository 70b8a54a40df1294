"""Computes what the float64 reference expects of one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import core.ops  # noqa: F401 - fills the vocabulary
from core.ir.fusion import FusedOp
from core.ir.op import Op
from core.runtime.run_op import _described
from core.tensor.tensor import Array
from core.verify.compare import Expected


def expectations(op: Op, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any],
                 ) -> dict[str, Expected]:
    """Return what a kernel's results are compared with, by name, without absent results. Raises
    OpError for inputs or attributes that the op does not take."""
    full, env, dtypes = _described(op, arrays, attrs)
    with np.errstate(all="ignore"):
        exact, single = (op.reference_in(compute, arrays, env, full)
                         for compute in (np.float64, np.float32))
        halves = any(d.is_float and d.itemsize == 2 for d in dtypes.values())
        stored = (op.reference_in(np.float32, arrays, env, full, rounding=True)
                  if halves and isinstance(op, FusedOp) else single)  # others have no intermediates
        condition = (op.condition(op.inputs_in(np.float64, arrays), full)
                     if type(op).condition is not Op.condition else 1.0)
        return {name: Expected(e, f, s.astype(dtypes[name].numpy), dtypes[name], condition)
                for name, e, f, s in zip(op.result_names, exact, single, stored, strict=True)
                if e is not None}
