"""Native arrays of weights are made once for all plans, until another tensor takes the place."""

import numpy as np
from toy_backend import ToyBackend

from core.plan.weights import WeightStore
from core.tensor.tensor import Tensor


def test_a_weight_has_one_native_array_for_all_plans():
    store, backend = WeightStore({"w": np.arange(6, dtype=np.float32)}), ToyBackend()
    first = store.native("w", backend, (2, 3))
    assert store.native("w", backend, (2, 3)) is first and first.shape == (2, 3)
    assert store.native("w", backend, (6,)).shape == (6,)
    store.put("w", Tensor.from_numpy(np.ones(6, np.float32), backend.allocator))
    assert np.asarray(store.native("w", backend, (2, 3))).tolist() == [[1, 1, 1], [1, 1, 1]]
    store.close()
    assert not store._natives
