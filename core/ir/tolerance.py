"""Tolerance: bounds how far a result may be from the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Bounds how far a kernel may be from the float64 reference.

    Arithmetic: `factor` × the error of the same computation in float32, and at least `ulps` × eps
    of float32 × the inputs' `condition`. A 16-bit result may add what rounding costs: `roundings` ×
    half an ULP in the worst element, and the same-dtype reference's own NMSE (× roundings²). Errors
    are relative to the largest expected value of a row. `exact` asks for equal bits instead.
    """

    factor: float
    ulps: float
    reason: str
    exact: bool = False
    roundings: float = 1.0

    def __str__(self) -> str:
        if self.exact:
            return f"equal bits: {self.reason}"
        return (f"{self.factor:g} × float32's error, at least {self.ulps:g} ULP, "
                f"{self.roundings:g} × 16-bit rounding: {self.reason}")


EXACT = Tolerance(0, 0, "moves or compares values without arithmetic", exact=True)


