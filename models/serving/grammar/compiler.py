"""Turns what a request says of its text's form into a grammar that masks tokens."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from core.errors import OptionError, missing_packages
from models.serving.grammar.check_process import LIMITS, PREFIX, SECONDS
from models.serving.grammar.params import StructuredOutputsParams
from models.serving.grammar.state import Grammar, TokenMasks
from models.tokenizers.base import Tokenizer
from models.tokenizers.chat.child import Child

_EXCERPT = re.compile(r"^ *\d+ \| .*", re.M | re.S)  # of the grammar, after what is said of it
_PLACE = re.compile(r"^at (\d+)\((\d+)\): ")
KEPT = 16  # grammars that stay compiled, by last use

_CHILD = Child(Path(__file__).with_name("check_process.py"), SECONDS)


class GrammarCompiler:
    """Compiles grammars for one vocabulary; safe from any thread, and no thread waits for a step.

    eos_ids  the ids that end a text: they are masked until the text is complete
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: frozenset[int]) -> None:
        self._tokenizer, self._size, self._eos_ids = tokenizer, vocab_size, eos_ids
        self._masks: TokenMasks | None = None
        self._kept: OrderedDict[str, Any] = OrderedDict()  # a matcher, or why there is none
        self._lock = threading.Lock()

    def compiled(self, params: StructuredOutputsParams) -> bool:
        """Tell whether `start` returns at once."""
        with self._lock:
            return params.lark in self._kept

    def start(self, params: StructuredOutputsParams) -> Grammar:
        """Return a grammar at its start. Raises OptionError for one that cannot be used, with the
        reason; TokenizerError where the bytes of the tokens are not known."""
        lark = params.lark
        with self._lock:
            found = self._kept.get(lark)
            masks = self._masks = self._masks or self._open(params)
        if found is None:
            found = self._compile(lark, masks, params.grammar is not None)
        with self._lock:
            self._kept[lark] = found
            self._kept.move_to_end(lark)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        if isinstance(found, str):
            raise OptionError(f"{params.named} cannot be used: {found}")
        return Grammar(found.deep_copy(), masks)

    def _open(self, params: StructuredOutputsParams) -> TokenMasks:
        try:
            import llguidance  # noqa: F401 - only who constrains a text needs it
        except ImportError:
            raise missing_packages(
                params.named, {"llguidance": "pip install 'kernelyard[structured]' (or pip install "
                               "llguidance)"}, OptionError) from None
        return TokenMasks(self._tokenizer, self._size, self._eos_ids)

    @staticmethod
    def _compile(lark: str, masks: TokenMasks, own: bool) -> Any:  # noqa: ANN401 - LLMatcher, or a reason
        """Compile a grammar that a process of its own could compile; `own`: the user wrote it."""
        from llguidance import LLMatcher, LLParserLimits
        problem = _CHILD.ask(json.dumps({"grammar": lark}).encode() + b"\n").get("error")
        if not problem:
            matcher = LLMatcher(masks.tokenizer, PREFIX + lark, log_level=0,
                                limits=LLParserLimits(**LIMITS))
            problem = matcher.get_error()
            if not problem:
                return matcher
        return _worded(problem, own)


def _worded(problem: str, own: bool) -> str:
    """Return llguidance's words for a user. PREFIX is a line before the first of one's own."""
    if "its process ended" in problem:
        return "it nests too deeply, or needs too much memory"
    if problem.startswith("NoExtension"):
        return "no text fits it"
    said = _PLACE.sub(lambda f: f"line {int(f[1]) - 1}, character {f[2]}: " * own,
                      _EXCERPT.sub("", problem))
    return " ".join(said.replace("<non-verbose/>", "").split())[:300]
