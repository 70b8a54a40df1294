"""Breaks files at random, but along their structure, and reads them in a process with limits.

`python fuzzing.py READER SEED FIRST LAST FOLDER` reads the mutants FIRST to LAST of one reader and
prints the number of each before it begins, then how it ended. Nothing but our own errors may come
out, in 700 MB and five seconds of the processor, 20 by the clock: other programs may run beside it.
"""

import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

from good_files import (
    capsule,
    gguf,
    hf,
    index,
    kuiper,
    llama2c,
    lock,
    meta,
    ours,
    packed,
    torch_bin,
)
from mutations import mutant

SECONDS, MEGABYTES = 5, 700
WAITS = 4  # times SECONDS by the clock


def read_model(path, key=""):
    """Read and check a model as a load and an export do, then generate two tokens."""
    from format_models import REGISTRY

    from models.checkpoints.base import read_checkpoint
    from models.checkpoints.source import Source
    from models.engine.load import open_checkpoint
    from models.engine.options import LoadOptions
    checkpoint = read_checkpoint(f"{key}{path}", REGISTRY)
    Source(checkpoint, REGISTRY).check()
    checkpoint.tokenizer.decode(checkpoint.tokenizer.encode("Once upon a time, 12 cats!"))
    with open_checkpoint(checkpoint, LoadOptions(max_context=8), REGISTRY) as model:
        model.generate([3, 4], max_new_tokens=2).run()


def read_capsule(path):
    from format_models import REGISTRY

    from core.verify.capsules.capsule import Capsule
    from core.verify.capsules.replay import replay
    replay(Capsule.read(path), ["cpu_numpy"], REGISTRY)


def read_lock(path):
    from format_models import REGISTRY

    from core.conformance.rules.lock import Lock
    Lock.read(path).check(REGISTRY, ["cpu_numpy"])


READERS = {  # name: how a good file is made, how it is read
    "safetensors": (hf("model.safetensors"), read_model),
    "index": (index, read_model),
    "config.json": (hf("config.json"), read_model),
    "tokenizer.json": (hf("tokenizer.json", "tokenizer_config.json"), read_model),
    "tokenizer.model": (hf("tokenizer.model", "tokenizer_config.json"), read_model),
    "gguf": (gguf("llama2", "int8"), read_model),
    "gguf bpe": (gguf("qwen2", "f16"), read_model),
    "llama2c v0": (llama2c(0), read_model),
    "llama2c v1": (llama2c(1), read_model),
    "llama2c v2": (llama2c(2), read_model),
    "kuiper": (kuiper("qwen2", False), read_model),
    "kuiper int8": (kuiper("llama3", True), read_model),
    "params.json": (meta("params.json", "tokenizer.model"), read_model),
    "pth": (meta("consolidated.00.pth"), read_model),
    "pytorch_model.bin": (torch_bin, read_model),
    "gptq": (packed("gptq"), read_model),
    "awq": (packed("awq"), read_model),
    "ours": (ours, read_model),
    "capsule": (capsule, read_capsule),
    "lock": (lock, read_lock),
}
NEEDS = {"gguf": "gguf", "gguf bpe": "gguf", "params.json": "torch", "pth": "torch",
         "pytorch_model.bin": "torch"}


class TooLongError(BaseException):
    """Is nothing that a reader catches."""


def main(name, seed, first, last, folder):
    make, read = READERS[name]
    path, files = make(Path(folder))
    read(path)
    good = {f: f.read_bytes() for f in files}
    from core.errors import KernelyardError

    def stop(*_):
        raise TooLongError(f"more than {SECONDS} s")
    for sign in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(sign, stop)
    with open("/proc/self/statm") as statm:  # private memory is limited, mapped files are not
        used = int(statm.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + (MEGABYTES << 20),) * 2)
    ended, slowest = {"read": 0, "refused": 0}, 0.0
    for case in range(first, last):
        print(f"case {case}", flush=True)
        rng = random.Random(f"{name} {seed} {case}")
        file = rng.choice(files)
        file.write_bytes(mutant(file, good[file], rng))
        start, used = time.monotonic(), time.process_time()
        try:
            _limited(read, path)
            ended["read"] += 1
        except KernelyardError as error:
            said = str(error)
            ended["refused"] += 1
            if len(said) < 20 or len(said) > 5000:
                print(f"fault {case}: a message of {len(said)} characters", flush=True)
        except BaseException as error:
            print(f"fault {case}: {type(error).__name__}: {str(error)[:200]!r} at "
                  f"{traceback.extract_tb(error.__traceback__)[-1][:3]}", flush=True)
            if last - first == 1:
                traceback.print_exc()
        finally:
            took, used = time.monotonic() - start, time.process_time() - used
            slowest = max(slowest, used)
            if took > WAITS * SECONDS or used > SECONDS:
                print(f"fault {case}: took {took:.1f} s, {used:.1f} s computing", flush=True)
            if last - first > 1:
                file.write_bytes(good[file])
    print(f"peak {_peak_kib() >> 10} MB, slowest {slowest:.2f} s, {ended}")


def _limited(read, path):
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITS * SECONDS)
    try:
        read(path)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def _peak_kib():
    """Return the peak of this program's memory; getrusage would count what it was forked from."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
