"""Tests every family of kernels: a row has the same bits by each of them, for 1 to 512 rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.conformance.families import Differs, FamilyCase
from core.conformance.properties.subject import Refused
from core.conformance.report import PROPERTY


def test_one_family(family_case: FamilyCase, record_property: Callable[[str, object], None],
                    ) -> None:
    first = family_case.kernels[0]
    found: dict[str, Any] = {"property": "one_family", "backend": first.backend, "op": first.op,
                             "kernel": first.name}
    record_property(PROPERTY, found)
    try:
        family_case.check()
    except Differs as error:
        found["kernel"] = error.kernel
        pytest.fail(f"family {first.family} of {first.backend}, {first.op}: {error}",
                    pytrace=False)
    except Refused as reason:
        found["reasons"] = [str(reason)]
        pytest.skip(str(reason))
