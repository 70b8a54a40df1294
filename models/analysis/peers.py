"""Times other engines at the requests of models.bench --batch and --workload, in the same run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from core.errors import InputError, OptionError
from core.plan.weights import no_progress
from core.tensor.dtype import as_dtype
from core.tensor.host import HostAllocator
from models.analysis import peer_process
from models.architectures.tensors import EMBEDDING
from models.checkpoints.base import read_checkpoint
from models.checkpoints.gguf.writer import write_gguf
from models.checkpoints.huggingface.writer import write_huggingface
from models.checkpoints.source import Source
from models.engine.config import EngineConfig
from models.tokenizers.base import NoTokenizer

PEERS = ("transformers", "llama.cpp")
DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}  # torch's names


@dataclass(frozen=True)
class Workload:
    """Holds what our engine was asked, and what it did: tokens of each sequence, and the seconds
    from the first prompt to the last token, and until each sequence had one (0: not known)."""

    prompts: list[list[int]]
    counts: list[int]
    temperature: float
    tokens: list[list[int]]
    seconds: float
    first: float = 0.0


@dataclass(frozen=True)
class Peer:
    """Names another engine, and the Python that it is installed for."""

    name: str
    python: str

    @classmethod
    def parse(cls, text: str) -> list[Peer]:
        """Read NAME[=PYTHON],... Raises OptionError for a name that is none of PEERS."""
        found = list[Peer]()
        for part in filter(None, map(str.strip, text.split(","))):
            name, _, python = part.partition("=")
            if name not in PEERS:
                raise OptionError(f"--peers {part!r}: expected {' or '.join(PEERS)}, each with "
                                  "=PYTHON where another Python has it")
            if python and not Path(python).is_file():
                raise OptionError(f"--peers {part!r}: there is no file {python}; give the path of "
                                  "a Python")
            found.append(cls(name, python or sys.executable))
        return found


def measure_peers(peers: Sequence[Peer], config: EngineConfig, workloads: Sequence[Workload],
                  ) -> Iterator[dict[str, Any]]:
    """Yield a row for each peer and workload: tokens/s of the whole run, and how many tokens equal
    ours before the first that differs; or `skipped`, why there is none."""
    more = {"dtype": DTYPES[config.activations.short],
            "gpu": config.policy.primary.allocator.device != HostAllocator.device}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for peer in peers:
            skipped = ""
            try:
                path = _written(peer.name, config, folder)
            except InputError as error:
                skipped = str(error)
            for work in workloads:
                found = ({"skipped": skipped} if skipped else
                         _run(peer, path, work, folder, more))
                yield {"peer": peer.name, "ok": True, **_row(work, found)}


def _written(name: str, config: EngineConfig, folder: Path) -> Path:
    """Write the model as a peer reads it. Raises an InputError where its format cannot hold it."""
    checkpoint, registry = config.checkpoint, config.policy.registry
    quantize = config.options.quantize
    source = Source(checkpoint, registry)
    stored = as_dtype(source.dtype(EMBEDDING)).short
    if name == "transformers":
        if quantize:
            raise OptionError(f"transformers has no {quantize} products like ours")
        path = folder / "hf"
        path.mkdir()
        write_huggingface(source, path, stored, None, no_progress)
        return path
    if isinstance(checkpoint.tokenizer, NoTokenizer):  # it loads no file without, and gets ids
        words = read_checkpoint("stories-llama2", registry).tokenizer
        source = Source(replace(checkpoint, tokenizer=words), registry)
    write_gguf(source, folder / "model.gguf", quantize or stored, no_progress)
    return folder / "model.gguf"


def _run(peer: Peer, path: Path, work: Workload, folder: Path, more: dict[str, Any],
         ) -> dict[str, Any]:
    asked, answer = folder / "asked.json", folder / "answer.json"
    answer.unlink(missing_ok=True)
    asked.write_text(json.dumps({"prompts": work.prompts, "counts": work.counts,
                                 "temperature": work.temperature, **more}), encoding="utf-8")
    code = Path(peer_process.__file__).read_text(encoding="utf-8")  # no folder of ours on its path
    done = subprocess.run([peer.python, "-c", code, peer.name, str(path), str(asked), str(answer)],
                          cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not answer.exists():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"skipped": f"it failed: {lines[-1]}"}
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def _row(work: Workload, found: dict[str, Any]) -> dict[str, Any]:
    made = sum(work.counts)
    row = {"sequences": len(work.prompts), "prompt_tokens": sum(map(len, work.prompts)),
           "tokens": made, "our_tokens_per_s": made / work.seconds}
    if "skipped" in found:
        return {**row, "skipped": found["skipped"]}
    if [len(tokens) for tokens in found["tokens"]] != work.counts:
        return {**row, "skipped": f"{found['version']} gave other numbers of tokens than asked"}
    equal = sum(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=True)))
                for a, b in zip(work.tokens, found["tokens"], strict=True))
    return {**row, "version": found["version"], "seconds": found["seconds"],
            "tokens_per_s": made / found["seconds"],
            **_phases(row, work.first, work.seconds, "our_"),
            **_phases(row, found.get("first_s", 0.0), found["seconds"]),
            "equal_tokens": None if work.temperature else equal}


def _phases(row: dict[str, Any], first: float, seconds: float, whose: str = "") -> dict[str, float]:
    """Return the rates until each sequence has a token, and from then on, where that is known."""
    if not 0 < first < seconds:
        return {}
    return {f"{whose}prefill_tokens_per_s": row["prompt_tokens"] / first,
            f"{whose}decode_tokens_per_s": (row["tokens"] - row["sequences"]) / (seconds - first)}
