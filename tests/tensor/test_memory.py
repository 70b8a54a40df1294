"""Allocator, buffers, tensors: bounds, lifetimes, statistics, leaks; buffer layout."""

import gc

import ml_dtypes
import numpy as np
import pytest

import models
from core.errors import AllocationError, BoundsError, DtypeError, LifetimeError, ShapeError
from core.installed.registry import default_registry
from core.plan.liveness import ALIGNMENT, Lifetime, lay_out
from core.tensor.dtype import bf16, f32
from core.tensor.tensor import Tensor


@pytest.fixture
def allocator():
    from core.tensor.host import HostAllocator
    return HostAllocator()


def test_statistics(allocator):
    a, b = allocator.allocate(100), allocator.allocate(50)
    a.free()
    stats = allocator.stats
    assert (stats.allocated, stats.peak, stats.live, stats.total_allocations) == (50, 150, 1, 2)
    del b
    gc.collect()
    assert (stats.allocated, stats.live) == (0, 0)


@pytest.mark.parametrize("nbytes", [1, 1000, 1 << 22])
def test_host_memory_is_aligned_as_plans_lay_it_out(allocator, nbytes):
    buffers = [allocator.allocate(nbytes) for _ in range(3)]
    assert [b.pointer % ALIGNMENT for b in buffers] == [0, 0, 0]
    assert [b.nbytes for b in buffers] == [nbytes] * 3


def test_borrowed_memory_is_not_counted(allocator):
    host = np.arange(6, dtype=np.float32)
    tensor = Tensor.from_numpy(host, allocator, copy=False)
    host[0] = 42
    assert tensor.numpy()[0] == 42
    assert allocator.stats.total_allocations == 0


def test_lifetime(allocator):
    buffer = allocator.allocate(8)
    tensor = Tensor(buffer, (2,), f32)
    buffer.free()
    for use in (buffer.free, tensor.numpy, lambda: tensor.pointer, lambda: allocator.zero(buffer)):
        with pytest.raises(LifetimeError, match="fre"):
            use()


def test_bounds(allocator):
    buffer = allocator.allocate(8)
    host = np.zeros(3, np.float32)
    for use in (lambda: allocator.copy_from_host(buffer, host),
                lambda: allocator.copy_to_host(buffer, host[:1], 8),
                lambda: allocator.copy(buffer, buffer, 4, 0, 6),
                lambda: Tensor(buffer, (3,), f32), lambda: Tensor(buffer, (1,), f32, 6)):
        with pytest.raises(BoundsError, match="8"):
            use()
    with pytest.raises(AllocationError, match="-1"):
        allocator.allocate(-1)
    with pytest.raises(AllocationError, match="asked for"):
        allocator.allocate(2**60)


def test_tensor_views(allocator):
    host = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensor = Tensor.from_numpy(host, allocator)
    assert np.array_equal(tensor.permute(2, 0, 1).numpy(), host.transpose(2, 0, 1))
    assert np.array_equal(tensor.view(6, 4).rows(1, 3).numpy(), host.reshape(6, 4)[1:3])
    tensor.rows(0, 1).write(np.full((1, 3, 4), 7, np.float32))
    assert (tensor.numpy()[0] == 7).all() and tensor.numpy()[1, 0, 0] == 12
    with pytest.raises(ShapeError, match="contiguous"):
        tensor.permute(1, 0, 2).view(24)
    with pytest.raises(BoundsError, match="rows"):
        tensor.rows(1, 3)
    with pytest.raises(ShapeError, match="expected"):
        tensor.write(np.zeros((2, 3, 4), np.float64))


def test_sharing_with_other_libraries(allocator):
    tensor = Tensor.from_numpy(np.arange(4, dtype=np.float32), allocator)
    shared = np.from_dlpack(tensor)
    shared[1] = 9
    assert tensor.numpy()[1] == 9
    with pytest.raises(AttributeError, match="not CUDA"):
        _ = tensor.__cuda_array_interface__


def test_bf16_and_unsupported_dtypes(allocator):
    host = np.array([1.5, -2], ml_dtypes.bfloat16)
    assert Tensor.from_numpy(host, allocator).dtype is bf16
    with pytest.raises(DtypeError, match="float64"):
        Tensor.from_numpy(np.zeros(2), allocator)


def test_a_closed_model_leaks_nothing():
    allocator = default_registry().backend("cpu_numpy").allocator
    gc.collect()
    before = allocator.stats.allocated, allocator.stats.live
    for name in ("stories-llama2", "stories-llama3"):  # f32 as stored, and bf16 with prepare
        model = models.load(name)
        model.generate("Once upon a time", max_new_tokens=5).run()
        assert allocator.stats.live > before[1]
        model.close()
        with pytest.raises(LifetimeError, match="closed"):
            model.session.prefill([1])
        del model
    gc.collect()
    assert (allocator.stats.allocated, allocator.stats.live) == before


def test_layout_keeps_live_buffers_apart():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lives = [Lifetime(int(rng.integers(0, 5000)), int(a), int(a + rng.integers(0, 6)))
                 for a in rng.integers(0, 20, 30)]
        layout = lay_out(lives, guard=16)
        for i, a in enumerate(lives):
            assert layout.offsets[i] + a.nbytes + 16 <= layout.peak
            for j, b in enumerate(lives[:i]):
                if a.first <= b.last and b.first <= a.last:
                    x, y = layout.offsets[i], layout.offsets[j]
                    assert x + a.nbytes + 16 <= y - 16 or y + b.nbytes + 16 <= x - 16
        assert layout.peak <= layout.total
