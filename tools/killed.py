"""Starts a command, kills or interrupts it, and looks at what it leaves: for tools/kills.py."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SLOWEST = 30.0  # seconds from SIGINT to the end: LLVM hears of it when a function is compiled
SIGNALS = (signal.SIGKILL, signal.SIGINT)
CHILD = """
import json, os, sys
ready, events, at, sign, *arguments = sys.argv[1:]
if int(events):
    import models.checkpoints.placing as placing
    seen = 0

    def signalling(rename):
        def renamed(*args):
            global seen
            for now in (0, 1):
                result = rename(*args) if now else None
                if seen == int(at):
                    os.kill(os.getpid(), int(sign))
                seen += 1
            return result
        return renamed
    for owner, name in ((placing.Path, "rename"), (placing.Path, "replace"),
                        (placing, "_exchange")):
        setattr(owner, name, signalling(getattr(owner, name)))
sys.argv[:] = ["kernelyard", *arguments]  # the console script, which hears of SIGINT from here on
from kernelyard import _start
os.write(int(ready), b"r")
os.close(int(ready))
from kernelyard.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Case:
    """Holds a command that is killed."""

    arguments: tuple[str, ...]  # of `kernelyard`; an export writes to `m`
    renames: int = 0  # how many moments before and after a rename there are; 0: any moment
    old: bool = False  # whether a target is there before
    most: float = 60.0  # seconds of the run in which it is killed
    every: int = 1  # a next run follows this many kills, and each that left something
    cached: bool = False  # whether some compiled kernels of cpu_numba are kept, others are not


@dataclass
class Row:
    """Counts how the runs of one case and one signal ended."""

    finished: int = 0
    nexts: int = 0  # next runs that were made
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def lay_old(folder: Path, case: Case) -> None:
    """Put something else in the place of the target."""
    names = ("m/config.json",) if "hf" in case.arguments else ("m", "tokenizer.model")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("old")


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file, by its path; what is hidden is an export's own."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and not p.relative_to(folder).parts[0].startswith(".")}


def start(case: Case, folder: Path, cache: Path, at: int, sign: int) -> subprocess.Popen[str]:
    """Start the command and wait until Python runs in it."""
    ready, writing = os.pipe()
    with (folder / ".err").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(writing), str(int(at >= 0)), str(at), str(sign),
             *case.arguments], cwd=folder, pass_fds=[writing], text=True, stderr=err,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env={**os.environ, "XDG_CACHE_HOME": str(cache)})
    os.close(writing)
    os.read(ready, 1)
    os.close(ready)
    return process


def whole(case: Case, folder: Path, cache: Path) -> float:
    """Run a command to its end; returns its seconds. Raises RuntimeError where it fails."""
    process = start(case, folder, cache, -1, 0)
    begin = time.monotonic()
    if process.wait():
        raise RuntimeError((folder / ".err").read_text()[-600:])
    (folder / ".err").unlink()
    return time.monotonic() - begin


class Cases:
    """Runs one case: `new` is what it leaves when nobody kills it, `seconds` what it takes."""

    def __init__(self, case: Case, home: Path) -> None:
        self.case, self.cache = case, home / "cache"
        took = []
        for _ in range(1 if case.cached else 2):  # the first reads files that nobody read before
            with tempfile.TemporaryDirectory() as made:
                took.append(whole(case, Path(made), self.cache))
                self.new = contents(Path(made))
        self.seconds = min(*took, case.most)

    def once(self, row: Row, sign: signal.Signals, rng: random.Random, check: bool) -> None:
        """End one run by the signal, and look at what it leaves."""
        with tempfile.TemporaryDirectory() as made:
            folder, cache = Path(made) / "work", Path(made) / "cache"
            folder.mkdir()
            if self.case.old:
                lay_old(folder, self.case)
            if self.case.cached:
                shutil.copytree(self.cache, cache)
                for entry in cache.rglob("*.pickle"):
                    if rng.random() < 0.5:
                        entry.unlink()
            before = contents(folder)
            code = self._killed(folder, cache, sign, rng, row)
            row.finished += code == 0
            row.faults += self._faults(folder, before, sign, code)
            if check or any(p.name != ".err" for p in folder.glob(".*")):
                self._next(folder, cache, row)

    def _killed(self, folder: Path, cache: Path, sign: signal.Signals, rng: random.Random,
                row: Row) -> int:
        at = rng.randrange(self.case.renames) if self.case.renames else -1
        process = start(self.case, folder, cache, at, sign)
        if at < 0:
            time.sleep(rng.uniform(0, self.seconds))
            process.send_signal(sign)
        begin = time.monotonic()
        code = process.wait()
        if sign == signal.SIGINT and at < 0:
            row.slowest = max(row.slowest, took := time.monotonic() - begin)
            row.faults += [f"{took:.1f} s to end"] * (took > SLOWEST)
        return code

    def _faults(self, folder: Path, before: dict[str, bytes], sign: signal.Signals, code: int,
                ) -> list[str]:
        said, after, faults = (folder / ".err").read_text(), contents(folder), []
        # -2: Python was at its end, where SIGINT ends it without a word; a shell calls that 130
        if code not in (0, -sign, *([130] if sign == signal.SIGINT else [])):
            faults.append(f"exit code {code}: {said[-300:]!r}")
        if "Traceback" in said or "Exception ignored" in said:
            faults.append(f"a traceback: {said[-600:]!r}")
        if code == 0 and after != self.new:
            faults.append("finished, and the target is not whole")
        said_of = [before] if "nothing was written" in said else [self.new] \
            if "; m was written" in said else [before, self.new]  # before or after the export
        if code == 130 and after not in said_of:
            faults.append(f"{said!r}, and {sorted(after)} are there")
        if code == 130 and any(p.name != ".err" for p in folder.glob(".*")):
            faults.append("interrupted, and a temporary folder is left")
        if any(after[n] not in (before.get(n), self.new.get(n)) for n in after):
            faults.append(f"half-written: {sorted(after)}")
        if len({after[n] == self.new.get(n) for n in after}) > 1:
            faults.append(f"old and new are mixed: {sorted(after)}")
        return faults

    def _next(self, folder: Path, cache: Path, row: Row) -> None:
        """Run the command again, which must work whatever was left."""
        row.nexts += 1
        force = ["--force"] * (self.case.arguments[0] == "export")
        try:
            whole(Case((*self.case.arguments, *force)), folder, cache)
        except RuntimeError as error:
            row.faults.append(f"the next run failed: {error}")
        left = [p.name for p in folder.iterdir() if p.name.startswith(".")]
        if contents(folder) != self.new or left:
            row.faults.append(f"the next run left {sorted(contents(folder))}, {left}")
