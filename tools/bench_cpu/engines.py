"""Runs one GGUF file in llama.cpp and in our backends, each in a process of its own.

A process of its own, because each brings threads that wait in busy loops, and settings of OpenMP
that would be the other's as well. An engine that is not asked anything sleeps.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.tensor.tensor import Array

LLAMA = "llama.cpp"


class Engine:
    """Drives the other end of a process: call methods of its `Llama` or `Ours` by name."""

    def __init__(self, name: str, path: Path, threads: int, context: int,
                 dtype: str | None = None, *, mmap: bool = True) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, child = spawn.Pipe()
        self._process = spawn.Process(target=serve, daemon=True, args=(
            child, name, path, threads, context, dtype, mmap))
        self._process.start()
        self.call("ready")

    def call(self, method: str, *args: Any) -> Any:  # noqa: ANN401 - what the method returns
        """Raises RuntimeError with what went wrong there."""
        self._pipe.send((method, args))
        try:
            failed, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self.name} died with exit code "
                               f"{self._process.exitcode}") from None
        if failed:
            raise RuntimeError(f"{self.name}: {value}")
        return value

    def timed(self, ids: list[int], count: int) -> tuple[float, float, list[int], float]:
        """Time a turn; return it with the share of the processors that other programs took
        meanwhile."""
        before, start = _busy(), time.perf_counter()
        prefill, step, tokens, own = self.call("turn", ids, count)
        wall, cores = time.perf_counter() - start, os.cpu_count() or 1
        return prefill, step, tokens, max(0.0, _busy() - before - own) / (wall * cores)

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _busy() -> float:
    """Return the seconds that all processors together have worked since the machine started,
    for any program; 0 where the system does not say (https://docs.kernel.org/filesystems/proc.html)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, soft, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def serve(pipe: Any, name: str, path: Path, threads: int, context: int,  # noqa: ANN401
          dtype: str | None, mmap: bool) -> None:
    """Answer calls until the other end closes."""
    model: Any = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            model = model or (Llama(path, threads, context, mmap) if name == LLAMA
                              else Ours(name, path, threads, context, dtype, mmap))
            pipe.send((False, getattr(model, method)(*args)))
        except Exception as error:  # told to the one who asked
            pipe.send((True, f"{type(error).__name__}: {error}"))


class Ours:
    """Runs a session on one of our backends."""

    def __init__(self, backend: str, path: Path, threads: int, context: int,
                 dtype: str | None, mmap: bool) -> None:
        from core.installed.registry import default_registry
        from core.plugins.backend import BackendOptions
        from models.checkpoints.base import read_checkpoint
        from models.engine.load import open_checkpoint
        from models.engine.options import LoadOptions
        self.registry = default_registry(BackendOptions(threads=threads))
        chain = backend if backend == "cpu_numpy" else f"{backend},cpu_numpy"
        self.model = open_checkpoint(read_checkpoint(path, self.registry),
                                     LoadOptions(chain, dtype=dtype, max_context=context,
                                             mmap=mmap),
                                     self.registry)
        self.session = self.model.session
        self.backend = self.registry.backend(backend)

    def ready(self) -> None:
        pass

    def turn(self, ids: list[int], count: int) -> tuple[float, float, list[int], float]:
        """Return (seconds to the first token, seconds of each further one, the tokens, greedy;
        seconds of processor time)."""
        self.session.truncate(0)
        own, start = time.process_time(), time.perf_counter()
        self.session.prefill(ids)
        tokens = [self.session.token]
        middle = time.perf_counter()
        tokens += [self.session.step() for _ in range(count - 1)]
        seconds = (time.perf_counter() - middle) / (count - 1)
        return middle - start, seconds, tokens, time.process_time() - own

    def logits(self, ids: list[int], tokens: list[int]) -> Array:
        """Return the logits float32 [len(tokens), V] from which each of `tokens` was sampled after
        `ids`. They are the decoding session's own: it must sample these tokens."""
        self.session.truncate(0)
        rows = [self.model.logits(ids)[-1]]
        self.session.truncate(0)
        self.session.prefill(ids)
        for _ in tokens[1:]:
            self.session.step()
            rows.append(np.array(self.session.decoder.output("logits").numpy()[0], np.float32))
        return np.stack(rows)

    def check(self, ids: list[int]) -> str:
        """Hold every kernel of a prefill and of a decode step to the float64 definition. Raises
        RuntimeError if one is wrong."""
        from core.verify.crosscheck import CrossCheck
        from core.verify.policies import REFERENCE
        check = CrossCheck(self.registry, [REFERENCE])
        self.session.truncate(0)
        with self.session.observed(check):
            self.session.prefill(ids)
            self.session.step()
        tally = check.tally
        if not tally.ok:
            raise RuntimeError(f"{tally.wrong} of {tally.calls} kernel calls are wrong")
        return f"{tally.calls} kernel calls checked"

    def profile(self, ids: list[int]) -> dict[str, Any]:
        """Return a list of KernelTime for a prefill and for a decode step."""
        from models.analysis.timing import profile
        self.turn(ids, 2)
        plans = {p.bindings[0].call.dims["T"]: p for p in self.session.plans}
        decode = profile(plans[1])
        self.session.truncate(0)
        self.session.prefill(ids, "none")  # plans share inputs: a prompt's have to be in place
        return {"prefill": profile(plans[len(ids)]), "decode": decode}

    def facts(self) -> dict[str, Any]:
        """Return version, ledger, bytes of the matrices of a decode step, and operations a row."""
        from models.analysis.batch_bench import product_flops
        weights = self.session.weights
        read = {v.root.name for n in self.session.decoder.graph.nodes
                if n.op.name in ("linear", "quantized_linear") for v in n.inputs.values()
                if v is not None and v.kind == "weight"}
        return {"version": self.backend.describe(), "ledger": self.model.ledger.hash,
                **product_flops(self.session.decoder.graph),
                "bytes": sum(weights.arrays[name].nbytes for name in read)}

    def bandwidth(self) -> float:
        return self.backend.read_bandwidth() or 0.0

    def arithmetic(self) -> float:
        """Return FLOP/s of a float32 product by NumPy with these threads, the best of five."""
        a = np.ones((2048, 2048), np.float32)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            np.matmul(a, a)
            times.append(time.perf_counter() - start)
        return 2 * 2048 ** 3 / min(times)

    def kernels(self) -> list[str]:
        """Return the kernels that run, each once."""
        return sorted({f"{e.phase} {e.kernel}" for e in self.model.ledger.entries})


class Llama:
    """Runs llama.cpp through llama-cpp-python's low-level interface: token ids in, logits out.
    It is timed with its defaults: flash attention, which rounds to float16, over a float16 cache.
    Logits are taken without it, over a float32 cache like ours.
    """

    def __init__(self, path: Path, threads: int, context: int, mmap: bool) -> None:
        import llama_cpp
        self.lib = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, None)
        llama_cpp.llama_backend_init()
        how = llama_cpp.llama_model_default_params()
        how.use_mmap = mmap
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), how)
        if not self.model:
            raise RuntimeError(f"it cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.n_threads = params.n_threads_batch = threads
        self.timed = llama_cpp.llama_init_from_model(self.model, params)
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.precise = llama_cpp.llama_init_from_model(self.model, params)
        self.size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def ready(self) -> None:
        pass

    def feed(self, context: Any, ids: list[int]) -> Array:  # noqa: ANN401 - a llama_context
        """Append ids; the logits after the last, in llama.cpp's memory."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        code = self.lib.llama_decode(context, self.lib.llama_batch_get_one(array, len(ids)))
        if code:
            raise RuntimeError(f"llama_decode returned {code}")
        return np.ctypeslib.as_array(self.lib.llama_get_logits(context), (self.size,))

    def forget(self, context: Any) -> None:  # noqa: ANN401 - as above
        self.lib.llama_memory_clear(self.lib.llama_get_memory(context), True)

    def turn(self, ids: list[int], count: int) -> tuple[float, float, list[int], float]:
        """Return what `Ours.turn` returns."""
        self.forget(self.timed)
        own, start = time.process_time(), time.perf_counter()
        tokens = [int(self.feed(self.timed, ids).argmax())]
        middle = time.perf_counter()
        for _ in range(count - 1):
            tokens.append(int(self.feed(self.timed, tokens[-1:]).argmax()))
        seconds = (time.perf_counter() - middle) / (count - 1)
        return middle - start, seconds, tokens, time.process_time() - own

    def logits(self, ids: list[int], tokens: list[int]) -> Array:
        """Return the logits float32 [len(tokens), V] after `ids`, and after each of `tokens`."""
        self.forget(self.precise)
        rows = [np.array(self.feed(self.precise, ids))]
        rows += [np.array(self.feed(self.precise, [token])) for token in tokens[:-1]]
        return np.stack(rows)

    def facts(self) -> dict[str, Any]:
        features = self.lib.llama_print_system_info().decode().strip(" |")
        return {"version": f"llama-cpp-python {self.lib.__version__} ({features})"}
