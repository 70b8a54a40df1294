"""Each way into cuda_cupy chooses the device in the thread that calls, on a machine without one."""

import ctypes
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cuda_cupy", reason="needs ./backends/cuda_cupy")
pytest.importorskip("cupy", reason="needs cupy-cuda13x")

from core import Tensor, cuda
from core.tensor.dtype import i32


@pytest.fixture
def backend(monkeypatch):
    """Make a backend over the host's memory, which asserts that the device is chosen."""
    import cupy

    from cuda_cupy import allocator, backend, device, reads
    chosen = threading.local()

    def check(*_):
        assert getattr(chosen, "device", None) == 1 and device.gpu._depth

    def copy(to, source, nbytes, kind, stream):
        check()
        ctypes.memmove(to, source, nbytes)

    class Stream:
        ptr = 7
        synchronize = __enter__ = __exit__ = check

    class Event:
        def __init__(self, **_):
            check()
        record = synchronize = check

    def memory(nbytes):
        check()
        bytes_ = (ctypes.c_uint8 * nbytes)()
        return SimpleNamespace(ptr=ctypes.addressof(bytes_), kept=bytes_)

    def pinned(nbytes):
        check()
        kind = type("Pinned", (ctypes.c_uint8 * nbytes,), {"ptr": property(ctypes.addressof)})
        return kind()
    fake = SimpleNamespace(
        memcpyAsync=copy, memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDeviceToDevice=3,
        memsetAsync=lambda to, value, nbytes, stream: (check(), ctypes.memset(to, value, nbytes)),
        memGetInfo=lambda: (check(), (1 << 20, 1 << 20))[1])
    for module in (allocator, reads):
        monkeypatch.setattr(module, "runtime", fake)
    monkeypatch.setattr(cupy.cuda, "alloc", memory)
    monkeypatch.setattr(cupy.cuda, "alloc_pinned_memory", pinned)
    monkeypatch.setattr(cupy.cuda, "Event", Event)
    monkeypatch.setattr(cupy, "get_default_memory_pool",
                        lambda: SimpleNamespace(free_bytes=lambda: check() or 0))
    one = device.CupyGpu()
    one._use = lambda: setattr(chosen, "device", 1)
    one._opened = cuda.Gpu(1, "GPU", 90, 4, 13000, Stream())
    for module in (allocator, reads):
        monkeypatch.setattr(module, "one_gpu", one)
    for module in (backend, device):
        monkeypatch.setattr(module, "gpu", one)
    monkeypatch.setattr(backend, "open_device", one.open)
    monkeypatch.setattr(backend.CupyBackend, "one_gpu", one)
    return backend.CupyBackend(1)


def test_a_new_thread_allocates_copies_reads_and_frees(backend):
    found, raised = [], []

    def work():
        try:
            allocator = backend.allocator
            for count in (4, 1 << 19):  # alone, and a piece of a slab
                x = Tensor.from_numpy(np.arange(count, dtype=np.int32), allocator)
                y = Tensor.zeros((count,), i32, allocator)
                found.append(int(x.numpy()[-1]) + int(y.numpy()[-1]))
                native = backend.native(x)
                assert (native.data.ptr, native.shape) == (x.pointer, x.shape)
                assert native.data.device_id == 1
                allocator.copy(y.buffer, x.buffer, x.nbytes)
                found.append(int(backend.read_later(y)()[-1]))
            allocator.synchronize()
            assert allocator.available() == 1 << 20
            backend.in_any_thread(backend.gpu.stream.synchronize)()
        except BaseException as error:
            raised.append(error)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert raised == [] and found == [3, 3, (1 << 19) - 1, (1 << 19) - 1]
    assert backend.allocator.stats.live == 0
