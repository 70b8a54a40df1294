"""Joins a model that is split into several GGUF files, as llama-gguf-split names and numbers them.

The first part has the metadata; each has `split.no` from 0, `split.count`, its own tensors and
`split.tensors.count`, the tensors of all parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from core.errors import CheckpointError
from core.reading import shown
from models.checkpoints.gguf.header import GgufHeader, TensorInfo, read_header

_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_NO, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"


def first_part(files: Sequence[Path]) -> Path | None:
    """Return the first of `files`, sorted, if all are named as parts of one model, else None."""
    names = [_NAME.fullmatch(f.name) for f in files]
    one = len({(m[1], m[3]) for m in names if m}) == 1
    return files[0] if one and all(names) else None


def read_parts(path: Path) -> GgufHeader:
    """Read a file, and where it is a part of a model the others too: the metadata of the first, the
    tensors of all. Raises CheckpointError for a part that is missing, or not of this model."""
    named = read_header(path)
    count = _number(named, _COUNT, 0)
    if count < 2:
        return named
    number = _number(named, _NO)
    match = _NAME.fullmatch(path.name)
    if match is None or (int(match[2]), int(match[3])) != (number + 1, count):
        raise CheckpointError(f"{path} is part {number + 1} of {count} of a model, expected a name "
                              f"that ends in {_ending(number, count)}: give all parts the names "
                              "that they were published with")
    files = [path.with_name(match[1] + _ending(i, count)) for i in range(count)]
    missing = [f.name for f in files if not f.exists()]
    if missing:
        raise CheckpointError(f"{path} is part {number + 1} of {count} of a model; beside it "
                              f"{', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''} "
                              f"{'is' if len(missing) == 1 else 'are'} missing: fetch all parts "
                              "into one folder")
    parts = [named if f == path else read_header(f) for f in files]
    tensors: dict[str, TensorInfo] = {}
    total = sum(len(part.tensors) for part in parts)
    for i, part in enumerate(parts):
        for key, expected in ((_NO, i), (_COUNT, count), (_TENSORS, total)):
            found = _number(part, key)
            if found != expected:
                raise CheckpointError(f"{part.path}: {key} is {found}, expected {expected} in part "
                                      f"{i + 1} of {count} with {total} tensors; the parts are of "
                                      "different models, or damaged: fetch them again")
        twice = sorted(tensors.keys() & part.tensors.keys())
        if twice:
            raise CheckpointError(f"{part.path}: tensor {twice[0]} is in an earlier part too; the "
                                  "parts are of different models: fetch them again")
        tensors.update(part.tensors)
    return GgufHeader(path, parts[0].metadata, tensors)


def _ending(number: int, count: int) -> str:
    return f"-{number + 1:05d}-of-{count:05d}.gguf"


def _number(header: GgufHeader, key: str, default: int | None = None) -> int:
    value = header.metadata.get(key, default)
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise CheckpointError(f"{header.path}: {key} is {shown(value)}, expected a count; the file "
                              "is damaged: fetch it again")
    return value
