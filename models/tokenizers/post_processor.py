"""Reads and writes which tokens tokenizer.json puts before and after a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def frame_of(block: Any) -> tuple[str | None, str | None]:  # noqa: ANN401 - JSON
    """Return texts of the token in front and of the one at the end, None where there is none."""
    for part in (block or {}).get("processors", [block]):
        if part and part.get("type") == "TemplateProcessing":
            single = part["single"]
            at = next((i for i, piece in enumerate(single) if "Sequence" in piece), len(single))
            return _first(single[:at]), _first(single[at + 1:])
    return None, None


def _first(pieces: Sequence[dict[str, Any]]) -> str | None:
    return next((str(p["SpecialToken"]["id"]) for p in pieces if "SpecialToken" in p), None)


def frame(bos: tuple[str, int] | None, eos: tuple[str, int] | None) -> list[dict[str, Any]]:
    """Return the processors that add BOS and EOS, each a text and an id."""
    if bos is None and eos is None:
        return []

    def sequence(name: str, type_id: int) -> list[dict[str, Any]]:
        return [*_special(bos, type_id), {"Sequence": {"id": name, "type_id": type_id}},
                *_special(eos, type_id)]
    tokens = {text: {"id": text, "ids": [i], "tokens": [text]}
              for text, i in (t for t in (bos, eos) if t is not None)}
    return [{"type": "TemplateProcessing", "single": sequence("A", 0),
             "pair": [*sequence("A", 0), *sequence("B", 1)], "special_tokens": tokens}]


def _special(token: tuple[str, int] | None, type_id: int) -> list[dict[str, Any]]:
    return [] if token is None else [{"SpecialToken": {"id": token[0], "type_id": type_id}}]
