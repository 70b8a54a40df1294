"""Holds measured figures in one shape, whatever measured them: rows of models.bench and of
tools/bench_cpu/compare.py become records, and files of records have one in a line."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.files import write_whole

ROOT = Path(__file__).parents[2]
#: FLOP/s that large products in bf16 reach on a card (cuBLAS, 2026-11-27): what limits a prompt
ARITHMETIC = {"NVIDIA H100 80GB HBM3": 790e12}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """Holds one figure, with all that is needed to judge it and to measure it again.

    figure   decode: tokens a second of all sequences, once each has a token; prefill: until then;
             mixed: of requests of many lengths; step: of a decode step's kernels in sequence
    weights  as stored: f32, bf16, int8, int4
    prompt   tokens of each sequence; `tokens` are new ones
    layers, threads   None: all layers; a GPU
    share    of the limit: bandwidth for decode, arithmetic for a prompt; None if not known
    limit    what that is
    seconds  of a decode step, or of the prompts
    nbytes   that a step must read, where known; flops of its products likewise
    peers    tokens a second of other programs in the same run, by name and version
    note     what else a reader must know, such as why a peer is missing
    kernels  of one step: [node, kernel, calls, seconds, bytes]
    """

    figure: str
    model: str
    weights: str
    backend: str
    sequences: int
    prompt: int
    tokens: int
    tokens_per_s: float
    card: str
    date: str
    commit: str
    command: str
    verdict: str
    ok: bool
    ledger: str | None = None
    layers: int | None = None
    threads: int | None = None
    share: float | None = None
    limit: str = ""
    seconds: float | None = None
    nbytes: float | None = None
    flops: float | None = None
    peers: dict[str, float] = field(default_factory=dict)
    note: str = ""
    kernels: list[list[Any]] = field(default_factory=list)

    @property
    def subject(self) -> tuple[Any, ...]:
        """Return what was measured: a newer record of the same takes its place."""
        return (self.figure, self.model, self.weights, self.backend, self.layers, self.threads,
                self.sequences, self.prompt, self.tokens, self.card)

    @property
    def peer(self) -> tuple[str, float] | None:
        """Return the fastest peer, and its tokens a second."""
        return max(self.peers.items(), key=lambda item: item[1], default=None)


def here() -> dict[str, str]:
    """Return date, commit (empty outside a clone) and processor of this run."""
    said = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=7"],
                          capture_output=True, text=True, check=False)
    return {"date": time.strftime("%Y-%m-%d"), "commit": said.stdout.strip(), "card": processor()}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.*)", info.read_text(), re.M) if info.exists() else None
    return f"{named[1] if named else platform.processor()}, {os.cpu_count()} cores"


def of_bench(rows: Iterable[Row], facts: Row) -> list[Record]:
    """Return the records of rows that `models.bench --json` prints for one command.

    facts  `date`, `commit`, `card` where the device is a CPU, and `command`
    """
    found: list[Record] = []
    for row in rows:
        if "peer" in row:
            found = [_beside(record, row) for record in found]
        else:
            found += _figures(row, facts)
    return found


def _figures(row: Row, facts: Row) -> list[Record]:
    card = re.search(r"NVIDIA [^(]*[^( ]", row["device"])
    count, prompt = row.get("sequences", 1), row.get("prompt", 0)
    threads = re.search(r"(\d+) (?:threads|cores)", row["device"])
    layers = re.search(r"--layers (\d+)", facts["command"])
    both: dict[str, Any] = {
        **facts, "card": card[0] if card else facts["card"], "model": row["shape"],
        "weights": row["quantize"] or row["stored"].split(",")[0], "tokens": row["tokens"],
        "backend": row["backend"].split(",")[0], "sequences": count, "prompt": prompt,
        "layers": int(layers[1]) if layers else None,
        "threads": None if card or not threads else int(threads[1]), "verdict": row["verdict"],
        "ok": row["ok"], "ledger": row["ledger"]}
    if "tokens_per_s" in row:  # nano-vllm's workload
        return [Record(figure="mixed", tokens_per_s=row["tokens_per_s"], seconds=row["seconds"],
                       share=row["roofline_share"], limit=bandwidth(row["bandwidth_bytes_per_s"]),
                       note=f"{row['prompt_tokens']:,} tokens of prompts", **both)]
    step = row.get("step_s") or 1 / row["decode_tokens_per_s"]
    speed = row["bandwidth_bytes_per_s"]
    decode = Record(
        figure="decode", tokens_per_s=row["decode_tokens_per_s"], seconds=step,
        share=row.get("roofline_share", row.get("bandwidth_share")),
        limit=bandwidth(speed),
        nbytes=row.get("read_bytes") or row.get("matrix_bytes"),
        flops=count * (row["row_flops"] + row["head_flops"]) if "row_flops" in row else None,
        **both)
    whole = count * prompt / row["prefill_tokens_per_s"]
    flops = (count * (prompt * row["row_flops"] + row["head_flops"]) if "row_flops" in row
             else None)
    most = ARITHMETIC.get(decode.card) if decode.weights == "bf16" else None
    parts = -(-prompt // row["chunk"]) if "chunk" in row else None
    prefill = Record(
        figure="prefill", tokens_per_s=row["prefill_tokens_per_s"], seconds=whole, flops=flops,
        nbytes=parts and parts * row["matrix_bytes"],
        share=flops / whole / most if flops and most else None,
        limit=f"{most / 1e12:.0f} TFLOP/s" if flops and most else "",
        note=f"chunks of {row['chunk']:,}" if "chunk" in row else "", **both)
    return [decode, prefill, *_profiled(row, both)]


def bandwidth(speed: float | None) -> str:
    """Return bytes a second as a limit; empty where it is not known."""
    if not speed:
        return ""
    return f"{speed / 1e12:.2f} TB/s" if speed >= 1e12 else f"{speed / 1e9:.1f} GB/s"


def _profiled(row: Row, both: dict[str, Any]) -> list[Record]:
    speed = row["bandwidth_bytes_per_s"]
    return [Record(figure="step", tokens_per_s=1 / part["step_s"], seconds=part["step_s"],
                   nbytes=(moved := sum(k["nbytes"] for k in part["kernels"])),
                   share=moved / part["step_s"] / speed if speed else None, limit=bandwidth(speed),
                   kernels=[[k["node"], k["kernel"], k["calls"], k["seconds"], k["nbytes"]]
                            for k in part["kernels"]], **both)
            for part in row.get("profile", ()) if part["what"] == "decode"]


def _beside(record: Record, row: Row) -> Record:
    """Return a record with what a peer reached at the same requests, or with why it did not."""
    if record.sequences != row["sequences"] or record.kernels:
        return record
    if "skipped" in row:
        why = f"{row['peer']} skipped: {row['skipped'].partition(' in /')[0]}"  # of this machine
        return replace(record, note="; ".join(filter(None, [record.note, why])))
    key = "tokens_per_s" if record.figure == "mixed" else f"{record.figure}_tokens_per_s"
    peers = {row["version"]: row[key]} if key in row else {}
    return replace(record, peers={**record.peers, **peers})


def read(path: Path) -> list[Record]:
    """Read a file of records. Raises InputError for a line that is none."""
    found, known = [], {f.name for f in fields(Record)}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found.append(Record(**row))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number}: expected a record, a JSON object with keys "
                             f"of {', '.join(sorted(known))}; {error}") from None
    return found


def write(path: Path, records: Sequence[Record]) -> None:
    """Write records, each in a line without the fields that say nothing."""
    defaults = {f.name: f.default for f in fields(Record)}
    lines = [json.dumps({k: v for k, v in asdict(record).items()
                         if v not in ([], {}) and v != defaults[k]}, ensure_ascii=False)
             for record in records]
    write_whole(path, "".join(f"{line}\n" for line in lines))


def merged(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Return records, newer ones in the place of older ones of the same subject."""
    found = {record.subject: record for record in old}
    for record in new:
        found[record.subject] = record
    return list(found.values())
