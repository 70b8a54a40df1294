"""Runs the commands of a stage, prints each figure with all its columns, and keeps it as a record.

    python tools/performance/measure.py STAGE [--backend cuda_cupy] [--peers llama.cpp[=PYTHON]]
        [--figures FILE] [--only TEXT] [--line "--shape llama3.2-1b --prompt 128" ...]

A stage is some lines of options of `models.bench`; --line takes their place. Every line is a fresh
process that measures peers after ours. Records are added to FILE as soon as a line is done: what
was measured stays, whatever ends the rest. Exit code 1: a line failed, or what it timed was wrong.
`page.py --take FILE` puts the records into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from performance.records import Record, here, merged, of_bench, read, write
from performance.tables import line as said

LLAMA = "--shape llama3.2-1b --stored bf16"
FLOATS = ("--shape tinyllama-1.1b", LLAMA, "--shape qwen2.5-0.5b --stored bf16")
CODES = ("--shape tinyllama-1.1b --quantize int8", f"{LLAMA} --quantize int8",
         f"{LLAMA} --quantize int4")
SEVEN = "--shape llama2-7b --stored bf16"
PATIENCE_S = 20  # for what is interrupted
STAGES = {
    "speeds": [f"{shape} --repeat 3" for shape in FLOATS],
    "codes": [f"{shape} --repeat 3" for shape in CODES],
    "seven": [f"{SEVEN} --repeat 3", f"{SEVEN} --quantize int8 --repeat 3"],
    "prompts": [f"{LLAMA} --prompt {n} --tokens 32 --repeat 3" for n in (128, 2048, 8192, 16384)],
    "batch": [f"{LLAMA} --prompt 128 --batch 1,8,32,64,128"],
    "contexts": [f"{LLAMA} --prompt 1024 --batch 8,32,64,128,256"],
    "mixed": [f"{LLAMA} --workload nano"],
    "profile": [f"{shape} --repeat 2 --profile" for shape in (*FLOATS, *CODES)]}


def measure(line: str, backend: str, peers: str, limit: int) -> tuple[list[Record], str]:
    """Return the records of one line, and what failed."""
    options = ["--backend", backend, *shlex.split(line)]
    named = re.sub(r"=[^,]*", "", peers)  # paths are of this machine alone
    command = shlex.join(["python", "-m", "models.bench", *options,
                          *(["--peers", named] if named else [])])
    program = [sys.executable, "-m", "models.bench", *options, "--json",
               *(["--peers", peers] if peers else [])]
    code, said, errors = ended(program, limit)
    rows = json.loads(said) if said.startswith("[") else []
    fault = f"{command}: exit code {code}: {errors.strip()[-600:]}" if code else ""
    return of_bench(rows, {**here(), "command": command}), fault


def ended(program: list[str], limit: int) -> tuple[int, str, str]:
    """Return the exit code and both outputs of a program, interrupted after `limit` seconds:
    models.bench prints then what it has measured."""
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        try:
            said, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                said, errors = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                said, errors = process.communicate()
            errors += f"interrupted after {limit} s"
    return process.returncode, said, errors


def main() -> int:
    """Print a line a figure."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("stage", choices=STAGES)
    p.add_argument("--backend", default="cuda_cupy")
    p.add_argument("--peers", default="", help="as models.bench takes them")
    p.add_argument("--figures", type=Path, help="add the records to this file")
    p.add_argument("--only", default="", metavar="TEXT", help="only lines that contain this")
    p.add_argument("--line", action="append", help="options of models.bench; may repeat")
    p.add_argument("--limit", type=int, default=170, metavar="S", help="the most for a line")
    args = p.parse_args()
    failed = False
    for line in args.line or [each for each in STAGES[args.stage] if args.only in each]:
        records, fault = measure(line, args.backend, args.peers, args.limit)
        print(*map(said, records), *[f"FAILED: {fault}"] * bool(fault), sep="\n", flush=True)
        failed |= bool(fault) or not all(record.ok for record in records)
        if args.figures:
            old = read(args.figures) if args.figures.exists() else []
            write(args.figures, merged(old, records))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
