"""Late reads: a result survives that its slot is used again."""

import numpy as np

from core.devices.late_reads import LateReads
from core.tensor.dtype import i32
from core.tensor.host import HostAllocator
from core.tensor.tensor import Tensor


def make(slots: int = 2, size: int = 16):
    waited = []

    def copy(i, slot, tensor):
        slot[:] = tensor.numpy().reshape(-1).view(np.uint8)
        return lambda: waited.append(i)
    return LateReads(np.zeros((slots, size), np.uint8), copy), waited


def test_results_taken_late_and_out_of_order():
    reads, waited = make()
    tensor = Tensor.zeros((1, 3), i32, HostAllocator())
    results = []
    for n in range(5):  # more than there are slots
        tensor.write(np.array([[n, n + 1, n + 2]], np.int32))
        results.append(reads.queue(tensor))
    assert waited == [0, 1, 0]  # the first three had to leave their slots
    for n in (4, 0, 2, 1, 3, 4):
        assert results[n]().tolist() == [[n, n + 1, n + 2]]
    assert len(waited) == 5


def test_a_tensor_larger_than_a_slot_is_read_at_once():
    reads, waited = make()
    tensor = Tensor.zeros((8,), i32, HostAllocator())
    result = reads.queue(tensor)
    tensor.write(np.ones(8, np.int32))
    assert result().tolist() == [0] * 8 and waited == []
