"""Run one kernel as a property sees it: on random inputs, its results compared with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from core.conformance.cases import Case
from core.conformance.runner import FICKLE
from core.errors import NoKernelError
from core.installed.registry import Registry
from core.ir.examples import Example
from core.ir.op import OPS, Op
from core.ir.tolerance import Tolerance
from core.plugins.kernel import Kernel
from core.tensor.dtype import DType
from core.tensor.tensor import Array
from core.verify.compare import Expected, compare
from core.verify.guarded_op import run_guarded

T = TypeVar("T")
Arrays = dict[str, Array | None]


class Draws(Protocol):
    """Make an example's choices: hypothesis, which shrinks what fails, or a test does."""

    def integer(self, low: int, high: int) -> int: ...

    def choice(self, options: Sequence[T]) -> T: ...


class Refused(Exception):
    """Says that the kernel does not take an example, which then shows nothing."""


@dataclass(frozen=True)
class Subject:
    """Hold one kernel with one set of dtypes."""

    registry: Registry
    kernel: Kernel
    dtypes: Mapping[str, DType]

    @property
    def op(self) -> Op:
        return OPS[self.kernel.op]

    def case(self, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any]) -> Case:
        """Make a case with these inputs, floats rounded to the subject's dtypes."""
        sample = Example("example", lambda r: dict(arrays), dict(attrs))
        return Case(self.op, self.kernel.backend, self.dtypes, sample)

    def run(self, case: Case, *, mapped: bool = False) -> Arrays:
        """Return the kernel's results by name; `mapped`: with weights as in a file's memory map.

        Raises Refused; AssertionError where it writes beyond its outputs or changes an input.
        """
        reason = self.kernel.refuses(case.call)
        if reason is not None:
            raise Refused(reason)
        try:
            done = run_guarded(self.op, case.arrays, case.attrs, backend=self.kernel.backend,
                               kernel=self.kernel.name, registry=self.registry, mapped=mapped)
        except NoKernelError as error:
            raise AssertionError(f"{FICKLE}: {error}") from None
        assert not done.broken, "; ".join(done.broken)
        return done.results

    def agree(self, case: Case, found: Arrays, wanted: Mapping[str, Array | None], *,
              bits: bool = False) -> None:
        """Raise AssertionError unless `found`, the results of `case`, are the wanted ones."""
        for name, want in wanted.items():
            got = found[name]
            if want is None or got is None:
                assert got is want, f"`{name}` is there in one of two runs only"
            elif bits:
                assert got.tobytes() == want.tobytes(), \
                    f"`{name}` has other bits: {_differing(got, want)}"
            else:
                said = compare(got, _around(case.expected[name], want), self._twice())
                assert said.ok, f"`{name}`: {said}"

    def _twice(self) -> Tolerance:
        one = self.kernel.tolerance or self.op.tolerance
        return replace(one, factor=2 * one.factor, ulps=2 * one.ulps, roundings=2 * one.roundings)


def _differing(got: Array, want: Array) -> str:
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{list(got.shape)} and {want.dtype}{list(want.shape)}"
    at = np.argwhere(np.atleast_1d(got.view(f"u{got.itemsize}") != want.view(f"u{got.itemsize}")))
    return f"{len(at)} of {got.size} elements, first at {at[0].tolist()}"


def _around(expected: Expected, value: Array) -> Expected:
    """Move what was expected so that `value` is exact and the same errors are allowed."""
    exact = value.astype(np.float64) if value.dtype.kind not in "iu" else value
    if not expected.dtype.is_float:
        return replace(expected, exact=exact)
    with np.errstate(invalid="ignore", over="ignore"):
        off = (np.nan_to_num(v.astype(np.float64) - expected.exact)
               for v in (expected.single, expected.stored))
        single, stored = (exact + o for o in off)  # as floats: `value` is on the dtype's grid
    return replace(expected, exact=exact, single=single, stored=stored)
