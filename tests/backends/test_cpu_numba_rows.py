"""Tests how cpu_numba divides rows among threads, and its rope at positions beyond the examples."""

import numpy as np
import pytest

pytest.importorskip("cpu_numba")
from core import run_op
from cpu_numba.kernels import threads


@pytest.mark.parametrize(("rows", "columns"), [(64, 768), (320, 256), (192, 512)])
def test_two_threads_end_together_with_eight_tokens(rows, columns, monkeypatch):
    """Pieces that are claimed by whoever is free: both threads have the same within a sixteenth."""
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: 2)
    how = threads.sharing(8, rows * columns, rows, 4 * rows * columns)
    loads = [0, 0]
    for piece in np.diff(how.starts):
        loads[loads.index(min(loads))] += piece
    assert sum(loads) == rows
    assert abs(loads[0] - loads[1]) <= rows // 16


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("size", [2, 18, 40, 80])
def test_rope_at_any_position(size, interleaved):
    rng = np.random.default_rng(size)
    positions = np.array([0, 1, 1000, 131071, 2**31 - 1], np.int32)
    x = rng.standard_normal((len(positions), 3, size)).astype(np.float32)
    frequencies = (500000.0 ** -(np.arange(size // 2) * 2 / size)).astype(np.float32)
    found, exact = (run_op("rope", x, positions, frequencies, interleaved=interleaved, backend=b)
                    for b in ("cpu_numba", "reference"))
    np.testing.assert_allclose(np.asarray(found), np.asarray(exact), rtol=0, atol=2e-6)
