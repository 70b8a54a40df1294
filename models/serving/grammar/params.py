"""Says which form the text of a request must have, with vLLM's names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from core.errors import OptionError
from core.reading import parse_json, shown

MOST_BYTES = 1 << 18  # of a schema, an expression, a grammar, or all choices together
_KINDS = ("json", "regex", "choice", "grammar", "json_object")


@dataclass(frozen=True)
class StructuredOutputsParams:
    """Holds the form that a text is to have, one of five; give exactly one. Raises OptionError.

    json         a JSON schema, as an object or as its text
    regex        an expression in the syntax of Rust's regex crate, for the whole text
    choice       texts, of which the model writes one
    grammar      a grammar in llguidance's form of Lark
    json_object  True: any JSON object
    disable_any_whitespace  JSON has no space between its tokens; else one, or a new line and its
                 indent
    named        the field in which a user gave this, for messages
    """

    json: Any = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    named: str = "structured_outputs"

    def __post_init__(self) -> None:
        for name in ("json_object", "disable_any_whitespace"):
            if type(value := getattr(self, name)) not in (bool, type(None)):
                raise self._error(f"{name} is {shown(value)}, expected True or False")
        given = [name for name in _KINDS if getattr(self, name) not in (None, False)
                 or (name == "json" and self.json is False)]
        if len(given) != 1:
            raise self._error(f"it has {' and '.join(given) or 'nothing'}, expected exactly one of "
                              f"{', '.join(_KINDS)}")
        if self.disable_any_whitespace and given[0] not in ("json", "json_object"):
            raise self._error(f"disable_any_whitespace is for JSON, found {given[0]}")
        if self.json is not None:
            object.__setattr__(self, "json", self._schema(self.json))
        if self.choice is not None:
            object.__setattr__(self, "choice", self._choices(self.choice))
        for name in ("regex", "grammar"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise self._error(f"{name} is {shown(value)}, expected a text that is not empty")
        for text in (self.json, self.regex, self.grammar, *(self.choice or ())):
            self._check_text(text)
        if (size := len(self.lark.encode())) > MOST_BYTES:
            raise self._error(f"it has {size:,} bytes, expected at most {MOST_BYTES:,}; make the "
                              "schema or the grammar smaller")

    @classmethod
    def of(cls, given: object, named: str = "structured_outputs") -> StructuredOutputsParams | None:
        """Return what a caller gave, as it is or as a mapping of its fields; None for None."""
        if given is None or isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise OptionError(f"{named} is {shown(given)}, expected an object with one of "
                              f"{', '.join(_KINDS)}")
        known = {field.name for field in fields(cls)} - {"named"}
        if wrong := [key for key in given if key not in known]:
            raise OptionError(f"{named} has {shown(wrong[0])}, and that is not built; expected one "
                              f"of {', '.join(_KINDS)}")
        return cls(**given, named=named)

    @property
    def lark(self) -> str:
        """Return the grammar that says the same in llguidance's form of Lark."""
        if self.json is not None:
            return f"start: {embedded(json.loads(self.json), not self.disable_any_whitespace)}"
        if self.json_object:
            return f"start: {embedded({'type': 'object'}, not self.disable_any_whitespace)}"
        if self.regex is not None:
            return f"start: /{_slashed(self.regex)}/"
        if self.choice is not None:
            return f"start: CHOICE\nCHOICE: {' | '.join(map(quoted, self.choice))}"
        return str(self.grammar)

    def _schema(self, schema: object) -> str:
        """Return a schema's text; so it is the same in every process, however deep it nests."""
        try:
            found = parse_json(schema) if isinstance(schema, (str, bytes)) else schema
            text = json.dumps(found, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._error(f"json is no JSON: {shown(str(error))}") from None
        if not isinstance(found, (dict, bool)):
            raise self._error(f"json is {shown(schema)}, expected a JSON schema, an object")
        return text

    def _choices(self, choice: object) -> tuple[str, ...]:
        if not isinstance(choice, (list, tuple)) or not choice or not all(
                isinstance(c, str) and c for c in choice):
            raise self._error(f"choice is {shown(choice)}, expected texts that are not empty")
        return tuple(choice)

    def _check_text(self, text: str | None) -> None:
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise self._error(f"{shown(text)} cannot be written in UTF-8") from None

    def _error(self, said: str) -> OptionError:
        return OptionError(f"{self.named} cannot be used: {said}")


#: between JSON's tokens: a space, or a new line and its indent. A small model may want spaces only
_WHITESPACE = r"( |\r?\n[ \t]{0,24})?"


def embedded(schema: Any, spaces: bool = True) -> str:  # noqa: ANN401 - JSON
    """Return what stands for a JSON schema in a rule; `spaces` may stand between its tokens."""
    if isinstance(schema, dict):
        between = {"whitespace_pattern": _WHITESPACE} if spaces else {"whitespace_flexible": False}
        schema = {**schema, "x-guidance": {**between, "lenient": False}}
    return f"%json {json.dumps(schema)}"


def quoted(text: str) -> str:
    """Return what stands for a text in a rule."""
    return json.dumps(text, ensure_ascii=False)


def _slashed(regex: str) -> str:
    """Return the expression with slashes and line ends, which would end it, escaped."""
    made, escaped = "", False
    for c in regex:
        made += "\\" * (c == "/" and not escaped) + {"\n": "n" if escaped else "\\n"}.get(c, c)
        escaped = c == "\\" and not escaped
    return made
