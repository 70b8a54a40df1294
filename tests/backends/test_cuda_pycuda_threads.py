"""Any thread may load, use, close and collect a model of cuda_pycuda; a forked process may not.

The CPU stands in for the GPU (tests/support/cuda_on_cpu): a new thread has no context there, what
is freed without one is lost, and a finalizer in a forked process ends it, as PyCUDA does.
"""

import os
import shutil

import pytest

from core.installed.registry import default_registry

pytestmark = [
    pytest.mark.skipif("cuda_pycuda" not in default_registry().specs,
                       reason="needs ./backends/cuda_pycuda"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which compiles the CUDA "
                       "sources for the CPU here")]
START = """
import gc, os, pathlib, sys, threading
from cuda_on_cpu.driver import use
use(pathlib.Path("guest"))
import models
from core.errors import BackendError

def load():
    return models.load("stories-llama2", dtype="f32", backend="cuda_pycuda", max_context=64)

def text(model, prompt="Once"):
    return model.generate(prompt, max_new_tokens=4, temperature=0.9, seed=1).run().text

def in_threads(*work):
    raised = []
    def run(each):
        try:
            each()
        except BaseException as error:
            raised.append(error)
    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for t in threads: t.start()
    for t in threads: t.join()
    assert raised == [], raised
"""
THREADS = """
sys.setswitchinterval(1e-4)
made, found = [], []
in_threads(lambda: made.append(load()))  # and opens the GPU
alone = {p: text(made[0], p) for p in ("Once", "A fox and a cat")}
def use_it(model):
    for prompt in alone:
        found.append(text(model, prompt) == alone[prompt])
made.append(load())
in_threads(*[lambda m=m: use_it(m) for m in made * 2])  # two models share the GPU
assert found == [True] * 8, found
in_threads(made.pop().close)
def collect():
    made.clear()
    gc.collect()
in_threads(collect)
from core.installed.registry import default_registry
gpu = default_registry().backend("cuda_pycuda").allocator
in_threads(gpu.synchronize, gpu.available)
print(f"{gpu.stats.allocated < 1 << 14} and {gpu.stats.peak > 1 << 20}")
"""
FORK = """
model = load()
expected = text(model)
inside, go = threading.Event(), threading.Event()
def hold():
    from cuda_pycuda.device import gpu
    with gpu:
        inside.set()
        go.wait()
thread = threading.Thread(target=hold)  # the child does not wait for it, as it is not there
thread.start()
inside.wait()
child = os.fork()
if not child:
    for what in (lambda: text(model), load, lambda: model.logits([1]),
                 model.session.decoder.output("token").numpy):
        try:
            print(what(), flush=True)
        except BackendError as error:
            print(error, flush=True)
    model.close()
    del model
    gc.collect()
    sys.exit(7)  # runs the finalizers of everything
go.set()
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert text(model) == expected
print("parent fine")
"""


def test_threads_load_use_close_and_collect_models(on_cpu):
    done = on_cpu(script=START + THREADS)
    assert done.stdout == "True and True\n", "what a thread collects is freed"
    assert "leaked" not in done.stderr and "context" not in done.stderr, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore")
def test_a_forked_child_names_spawn_and_ends(on_cpu):
    done = on_cpu(script=START + FORK)
    *child, parent = done.stdout.splitlines()
    assert parent == "parent fine" and len(child) == 4
    for said in child:
        assert said.startswith("backend cuda_pycuda cannot be used in a forked process: CUDA "
                               "contexts stay with its parent; fix: ") and "spawn" in said
    assert "terminate" not in done.stderr and "ignored" not in done.stderr, done.stderr
