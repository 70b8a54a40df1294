"""Lists the property cases: each property on each kernel, with each set of its dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.conformance.cases import EVERYTHING, Subset, cells, dtype_id, offers
from core.conformance.properties import PROPERTIES, Property
from core.conformance.properties.subject import Subject
from core.installed.registry import Registry
from core.ir.op import OPS
from core.plugins.kernel import Kernel


@dataclass(frozen=True)
class PropertyCase:
    """Holds one property to be tested on one kernel."""

    prop: Property
    subject: Subject

    @property
    def id(self) -> str:
        """Return an id such as `shifting-cpu_numpy-softmax-float32`, by the kernel's name."""
        kernel = self.subject.kernel
        return "-".join([self.prop.name, kernel.backend, kernel.name,
                         dtype_id(self.subject.dtypes)])


def property_cases(registry: Registry, kernel: Kernel, subset: Subset = EVERYTHING,
                   ) -> Iterator[PropertyCase]:
    """Yield every property case of a kernel."""
    op = OPS[kernel.op]
    for dtypes in cells(op):
        if offers(kernel, dtypes) and subset.has(op, dtypes):
            for prop in PROPERTIES.values():
                if prop.applies(op):
                    yield PropertyCase(prop, Subject(registry, kernel, dtypes))
