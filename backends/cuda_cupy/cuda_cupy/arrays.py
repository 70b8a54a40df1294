"""Makes small arrays that kernels keep between launches."""

from __future__ import annotations

from typing import Any

from cuda_cupy.device import device, gpu


def counters(count: int) -> Any:  # noqa: ANN401 - a cupy array
    """Make zeros by which the blocks of a launch count themselves; each launch leaves them zero."""
    import cupy
    with gpu, device().stream:
        return cupy.zeros(max(1, count), "int32")
