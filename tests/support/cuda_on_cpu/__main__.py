"""Runs a module with the stand-ins in place of a GPU: python -m cuda_on_cpu MODULE ARGUMENTS."""

import runpy
import sys
import tempfile
from pathlib import Path

from cuda_on_cpu.driver import use

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        use(Path(folder))
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
