"""Tests properties that follow from the ops' contracts, at random shapes, for every kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from core.conformance.properties.subject import Refused
from core.conformance.report import PROPERTY, property_facts
from core.conformance.trials import PropertyCase
from core.errors import KernelError

# typed as Any: the package is an optional extra
hypothesis: Any = pytest.importorskip("hypothesis",
                                      reason="properties need hypothesis: pip install hypothesis")
st: Any = pytest.importorskip("hypothesis.strategies")

EXAMPLES = 12
T = TypeVar("T")


class Drawn:
    """Makes an example's choices through hypothesis: the same ones in every run."""

    def __init__(self, data: Any) -> None:  # noqa: ANN401 - hypothesis is optional
        self._data = data

    def integer(self, low: int, high: int) -> int:
        return int(self._data.draw(st.integers(low, high)))

    def choice(self, options: Sequence[T]) -> T:
        chosen: T = options[self.integer(0, len(options) - 1)]
        return chosen


def test_holds(property_case: PropertyCase, record_property: Callable[[str, object], None]) -> None:
    kernel, ran, refused, failed = property_case.subject.kernel, [], [], list[str]()
    found = property_facts(property_case)
    if kernel.machine is None:  # the matrix is the same on every machine
        record_property(PROPERTY, found)

    @hypothesis.settings(  # type: ignore[untyped-decorator]
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(st.data())  # type: ignore[untyped-decorator]
    def example(data: Any) -> None:  # noqa: ANN401
        try:
            property_case.prop.check(property_case.subject, Drawn(data))
        except AssertionError as error:
            failed.append(f"{kernel.id} for {kernel.op} breaks `{property_case.prop.says}`: "
                          f"{error}")
            pytest.fail(failed[-1], pytrace=False)
        except KernelError as error:
            failed.append(str(error))
            pytest.fail(failed[-1], pytrace=False)
        except Refused as reason:
            refused.append(str(reason))
        else:
            ran.append(True)

    flaky = False
    try:
        example()
    except hypothesis.errors.Flaky:
        flaky = True
    if flaky:  # not from the block above: pytest would show hypothesis's error too
        pytest.fail(f"{failed[0]}; not when run again from the same inputs: a race, or hidden "
                    "state", pytrace=False)
    if not ran:
        found["reasons"] = [f"{kernel.id}: {refused[0]}"]
        pytest.skip(f"{kernel.id} refuses every example: {refused[0]}")
