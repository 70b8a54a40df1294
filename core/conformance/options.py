"""States the suite's options once: for pytest, under a prefix, and for `kernelyard conform`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.isolation import TIMEOUT_S

#: name -> what argparse's add_argument takes beside it
OPTIONS: dict[str, dict[str, Any]] = {
    "backend": {"action": "append", "metavar": "NAME[,NAME]", "help": "backends to test; may "
                "repeat (default: every available one)"},
    "op": {"action": "append", "default": [], "metavar": "NAME[,NAME]", "help": "test only these "
           "ops; may repeat"},
    "dtype": {"action": "append", "default": [], "metavar": "NAME[,NAME]", "help": "test only "
              "cells with these dtypes or ids (float32.W=bf16); may repeat"},
    "large": {"action": "store_true", "help": "run the examples that need gigabytes instead of the "
              "others"},
    "calls": {"type": Path, "metavar": "FILE.json", "help": "test the calls of a model's plans "
              "that `kernelyard conform --model M --calls FILE.json` wrote, instead of the ops' "
              "examples"},
    "repeat": {"type": int, "default": 2, "metavar": "N", "help": "runs of each kernel on each "
               "case, which must give equal bits: more find races (default: 2)"},
    "isolate": {"action": "store_true", "help": "run the tests in a process apart: a kernel that "
                "crashes, ends Python or never returns fails its test by name, and the suite goes "
                "on"},
    "step-timeout": {"type": float, "metavar": "S", "help": "with --isolate: the seconds that one "
                     f"kernel may take (default: {TIMEOUT_S:g})"},
    "time": {"action": "store_true", "help": "time the kernel that a plan chooses"},
    "report": {"action": "append", "default": [], "type": Path, "metavar": "FILE", "help": "write "
               "a report: .json, .md (support matrix) or .txt; may repeat"},
    "gpu-report": {"type": Path, "metavar": "FILE.json", "help": "write a report of the backends "
                   "that compute on a GPU, with the speeds that the tests measure; test only those "
                   "backends, and fail without one"},
    "include": {"action": "append", "default": [], "type": Path, "metavar": "FILE.json",
                "help": "add another run's report, of backends not tested here"},
    "expect": {"type": Path, "metavar": "FILE.md", "help": "fail if FILE, a support matrix, has "
               "other statuses, tolerances or remarks than this run's"},
    "write-lock": {"type": Path, "metavar": "FILE", "help": "write a lock file of every kernel "
                   "tested, with its verdict, for models.run --lock"},
    "only-plugins": {"metavar": "NAME[,NAME]", "help": "load these plugins and no other"},
    "without-plugin": {"action": "append", "default": [], "metavar": "NAME", "help": "do not load "
                       "this plugin; may repeat"},
}


def flag(name: str) -> str:
    """Return an option's name in pytest."""
    return f"--kernelyard-{name}"
