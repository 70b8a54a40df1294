"""One thread at a time is in a GPU's block, with the context; what is freed waits for nobody."""

import gc
import os
import subprocess
import sys
import threading
import warnings

import pytest

from core.devices.entry import Entry, Held
from core.errors import AllocationError, BackendError


class Contexts(Entry):
    """Keeps which thread has the context."""

    backend = "my_cuda"

    def __init__(self):
        super().__init__()
        self.has, self.said = None, []

    def enter(self):
        assert self.has is None
        self.has = threading.get_ident()
        self.said.append("enter")

    def leave(self):
        assert self.has == threading.get_ident()
        self.has = None
        self.said.append("leave")


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_block_in_another_enters_once():
    gpu = Contexts()
    with gpu, gpu:
        assert gpu.has == threading.get_ident()
    assert gpu.said == ["enter", "leave"]
    with pytest.raises(ValueError, match="x"), gpu:
        raise ValueError("x")
    assert gpu.has is None


def test_what_cannot_be_entered_lets_others_in():
    gpu, broken = Contexts(), Contexts()
    broken.enter = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError), broken:
        pass

    def other():
        with gpu:
            gpu.said.append("in")
    in_thread(other).join()
    assert gpu.said == ["enter", "in", "leave"]


def test_threads_take_turns_in_blocks_of_all_libraries():
    gpus, inside, most = (Contexts(), Contexts()), [], []

    def work(i):
        for _ in range(200):
            with gpus[i % 2]:
                inside.append(i)
                most.append(len(inside))
                inside.pop()
    threads = [in_thread(lambda i=i: work(i)) for i in range(4)]
    for t in threads:
        t.join()
    assert max(most) == 1 and len(most) == 800


def test_what_a_thread_drops_is_freed_in_the_context_and_never_waits():
    gpu, where = Contexts(), []

    class Memory:
        def __del__(self):
            where.append(gpu.has)
    with gpu:
        held = [Held(gpu, Memory()), Held(gpu, Memory())]
        assert isinstance(held[0].thing, Memory)
        in_thread(held.pop).join()  # ends although this thread is in the block
        del held[:]
        gc.collect()
        assert where == [], "not in the way of what the block does"
    assert where == [threading.get_ident()] * 2 and gpu.has is None


def test_room_is_made_by_what_waits_to_be_freed():
    gpu, free = Contexts(), []

    def allocate():
        if not free:
            raise AllocationError("full")
        return "memory"
    with gpu:
        gpu.later(lambda: free.append(1))
        assert gpu.room(allocate) == "memory"
        free.clear()
        with pytest.raises(AllocationError, match="full"):
            gpu.room(allocate)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_no_gpu_and_frees_nothing():
    gpu, inside, go = Contexts(), threading.Event(), threading.Event()
    reading, writing = os.pipe()
    gpu.ends_at_fork()

    class Memory:
        def __del__(self):
            os.write(writing, b"freed ")

    def hold():
        with gpu:
            inside.set()
            go.wait(60)
    held, thread = Held(gpu, Memory()), in_thread(hold)
    inside.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of a fork with threads
        child = os.fork()
    if not child:
        try:
            del held
            gc.collect()
            with gpu:
                os.write(writing, b"entered ")
        except BackendError as error:
            os.write(writing, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    said = os.read(reading, 4096).decode()
    os.close(reading)
    assert said == ("backend my_cuda cannot be used in a forked process: CUDA contexts stay with "
                    "its parent; fix: start processes with multiprocessing.get_context('spawn')")
    gpu.check()
    writing = os.open(os.devnull, os.O_WRONLY)
    go.set()
    thread.join()
    del held
    os.close(writing)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's on_exit")
def test_a_forked_process_ends_without_the_exit_handlers_of_its_parents_libraries():
    done = subprocess.run([sys.executable, "-c", """
import atexit, ctypes, os, sys
from core.devices.entry import Entry
gpu = Entry()
gpu.backend = "my_cuda"
handler = ctypes.CFUNCTYPE(None)(lambda: os.write(1, b"library's "))
ctypes.CDLL(None).on_exit(handler, None)
gpu.ends_at_fork()
atexit.register(lambda: print("Python's", end=" "))
if not (child := os.fork()):
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end=" ", flush=True)
os._exit(0)
"""], capture_output=True, text=True, check=True)
    assert done.stdout == "Python's 3 "
