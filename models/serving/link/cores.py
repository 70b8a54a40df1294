"""Decides whether kernels of a CPU leave a core to HTTP.

Kernels whose threads wait for one another in busy loops all stand still while HTTP has the core of
one of them, and a token comes late. Without that core they take longer, but each step as long as
the one before.
"""

from __future__ import annotations

import os

HTTP = 1e-4  # seconds of a core that a streamed token takes: 75 to 115 µs were measured
SPEED = 1e10  # weights that a core multiplies in a second, with 32 sequences in a step
LOSS = 2  # seconds of all cores that a second of HTTP costs kernels which have them all


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def left_to_http(weights: int, cores: int) -> int:
    """Return how many of the cores kernels leave, 0 or 1: one where that costs less than HTTP in
    their way. Results do not depend on it.

    weights  of the model, about as many as are multiplied for a token
    """
    without = weights / SPEED / max(1, cores - 1)  # seconds a token, with one core less
    return int(cores > 1 and without <= cores * LOSS * HTTP)


def told(weights: int, cores: int) -> str:
    """Say in a line why one is left."""
    return (f"cores: {cores - 1} of {cores} compute, 1 is left to HTTP, since a token of "
            f"{weights / 1e6:,.1f} million weights is soon computed (--threads N decides instead)")
