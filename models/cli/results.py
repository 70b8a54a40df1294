"""Writes the results of a batch line by line, so that a run that was ended goes on from there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from io import BufferedIOBase
from pathlib import Path
from types import TracebackType
from typing import Any

from core.errors import OptionError
from core.files import naming
from core.reading import parse_json
from models.serving.openai.batch_lines import NONFINITE, Line

_FIRST = b'{"id": "batch_req_'  # with which each result begins


class Results:
    """Appends results to a file and knows those that are there; without a file, standard output.

    errors, failed  results that are an error, and those of them that the computation caused

    Raises OptionError for a file that holds something else. A last line that is half written, by a
    run that was killed, is dropped.
    """

    def __init__(self, path: Path | None) -> None:
        self.errors = self.failed = self.found = 0
        self._custom_ids, self._lines = set[str](), set[int]()
        self._path, self._file = path, None if path is None else self._open(path)

    def done(self, line: Line) -> bool:
        """Tell whether the result of a line is there: by its custom_id, else by its number."""
        if line.custom_id is None:
            return line.number in self._lines
        return line.custom_id in self._custom_ids

    def add(self, result: Mapping[str, Any]) -> None:
        """Write a result, at once."""
        self._count(result)
        text = json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n"
        data = text.encode("utf-8", "backslashreplace")
        if self._file is None or self._path is None:
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        else:
            try:
                self._file.write(data)
                self._file.flush()
            except OSError as error:
                raise naming(error, self._path) from None

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file is not None:
            empty = not self._file.tell()
            with suppress(OSError) if kind else nullcontext():  # the disk is full, as was said
                self._file.close()
            if empty and kind is not None and self._path is not None:
                self._path.unlink()  # of a run that has not begun

    def _open(self, path: Path) -> BufferedIOBase:
        if path.exists() and not path.is_file():
            raise OptionError(f"--output {path} cannot be used: it is no regular file; without "
                              "--output results go to standard output")
        try:
            file = path.open("a+b")
            try:
                file.truncate(self._read(path, file))
                file.seek(0, os.SEEK_END)
            except BaseException:
                file.close()
                raise
            return file
        except (OSError, ValueError) as error:  # ValueError: a NUL in its name
            raise OptionError(f"--output {path} cannot be used: {error}") from None

    def _read(self, path: Path, file: BufferedIOBase) -> int:
        """Read the results that are there. Returns where the whole ones end."""
        end = 0
        file.seek(0)
        for number, data in enumerate(file, 1):
            if not data.endswith(b"\n"):
                if data[:len(_FIRST)] != _FIRST[:len(data)]:
                    raise _foreign(path, number)
                break
            self._count(_result(path, number, data))
            self.found, end = number, end + len(data)
        return end

    def _count(self, result: Mapping[str, Any]) -> None:
        error, custom_id = result["error"], result["custom_id"]
        if custom_id is not None:
            self._custom_ids.add(custom_id)
        if error is not None:
            self.errors += 1
            self.failed += error["code"] == NONFINITE
            if custom_id is None:
                self._lines.add(error["line"])


def _result(path: Path, number: int, data: bytes) -> Mapping[str, Any]:
    try:
        result = parse_json(data)
        error, custom_id = result["error"], result["custom_id"]
        if "response" in result and (isinstance(custom_id, str) or type(error["line"]) is int) and (
                error is None or isinstance(error["code"], str)):
            return dict(result)
    except (ValueError, KeyError, TypeError):
        pass
    raise _foreign(path, number)


def _foreign(path: Path, number: int) -> OptionError:
    return OptionError(f"--output {path} has no result of a batch in line {number}; name another "
                       "file, or a new one")
