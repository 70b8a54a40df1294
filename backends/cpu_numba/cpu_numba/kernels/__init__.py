"""Holds every kernel of cpu_numba. Importing a family's module declares its kernels in
`kernels`."""

from pathlib import Path

from cpu_numba.caching import cache_of
from cpu_numba.kernels.declare import kernels

with cache_of(Path(__file__).parent / "compiled"):
    from cpu_numba.kernels import (  # noqa: F401 - they declare
        attention,
        basic,
        fused,
        linear,
        prefill,
        quantized,
    )

__all__ = ["kernels"]
