"""Encodes a conversation in which no message can write a control token of the template.

A rendered conversation is one text: a user who types `<|im_end|>` would end his own turn. So each
control token that a message contains is marked before the template runs: two noncharacters and a
number take the place of its first character. What the template writes itself stays whole. Then a
copy of the tokenizer, in which control tokens have other texts, encodes the conversation: the
template's get these texts, and what was marked is ordinary text in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from core.errors import PromptError, TokenizerError
from core.reading import shown
from models.serving.prompt import checked_text
from models.tokenizers.added import AddedToken, any_of, token_text
from models.tokenizers.base import Tokenizer
from models.tokenizers.chat.renaming import renamed
from models.tokenizers.chat_template import ChatTemplate
from models.tokenizers.json_tokenizer import JsonTokenizer
from models.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer

_MARK, _NAME = "\ufdd0{:x}\ufdd1", "\ufdd2{}\ufdd3"  # Unicode keeps these for a program's own use
_MARKED, _NAMED = re.compile("\ufdd0([0-9a-fA-F]+)\ufdd1"), re.compile("\ufdd2([0-9]+)\ufdd3")
_BESIDE = ("tools", "documents")  # in which others may have written too
_OURS = re.compile("[\ufdd0-\ufdd3]")
_FIX = "leave it out, or use --no-escape-special (escape=False), which lets messages write " \
       "control tokens"


class ConversationEncoder:
    """Turns messages into ids by the tokenizer's chat template.

    escape  whether control tokens that messages, tools and documents contain are ordinary text.
            Control tokens are the
            special ones and, outside of an assistant's messages, others in the template's source
            such as <tool_call>
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None = None, *,
                 escape: bool = True) -> None:
        """Take `template` in place of the tokenizer's. Raises TokenizerError without one, and where
        a plugin's tokenizer cannot escape."""
        chosen = template or tokenizer.template
        if chosen is None:
            raise TokenizerError("a conversation needs a chat template, and the model has none")
        self.encode_text, self.template, self.escape = tokenizer.encode, chosen, escape
        if not escape:
            return
        if not isinstance(tokenizer, JsonTokenizer | SentencePieceTokenizer):
            raise TokenizerError(f"a {type(tokenizer).__name__} cannot tell what messages contain "
                                 "from control tokens; use --no-escape-special (escape=False)")
        self.tokenizer = tokenizer
        written = "\n".join(self.template.sources.values())
        added = tokenizer.added
        self._special = {i: t for i, t in added.items() if t.special and t.text}
        self._controls = self._special | {
            i: t for i, t in added.items() if _is_tag(t.text) and t.text in written}

    def encode(self, messages: Sequence[Mapping[str, Any]], /, **more: Any) -> list[int]:  # noqa: ANN401
        """Return the ids of a conversation; `more` goes to the template. What messages, tools and
        documents contain is ordinary text.

        Raises PromptError where the text is not valid UTF-8, and where the template changes it so
        that what it contains cannot be told apart from the template's own tokens; TokenizerError
        where the template rejects it.
        """
        text = checked_text(self.template.render(messages, **more))
        if not self.escape or self.tokenizer.splits_special:
            return self.encode_text(text, special=True)
        marked = [self._mark(m, self._special if m.get("role") == "assistant" else self._controls)
                  for m in messages]
        beside = {k: self._mark(more[k], self._controls) for k in _BESIDE if k in more}
        given = [*messages, *(more[k] for k in beside)]
        if [*marked, *beside.values()] == given and not any(
                t.normalized for t in self._controls.values()):
            return self.encode_text(text, special=True)
        found = sorted({t.text for part in given for t in self._controls.values()
                        if t.text in str(part)}) or ["a message"]
        again = self.template.render(marked, **{**more, **beside})
        if _OURS.search(text) or _unmark(again) != text:
            raise PromptError(f"{shown(found[0])} is a control token of the model, and the chat "
                              "template changes the text around it, so that it cannot be told "
                              f"apart from the template's own; {_FIX}")
        named = self._pattern.sub(lambda f: self._names.get(f[0], f[0]), again)
        ids = self._renamed(_unmark(named))
        expected = [i for i in map(int, _NAMED.findall(named)) if i not in self._unknown]
        if [i for i in ids if i in self._controls and i not in self._unknown] != expected:
            raise PromptError(f"{shown(found[0])} is a control token of the model, and the "
                              f"tokenizer finds it in ordinary text too; {_FIX}")
        return ids

    def _mark(self, value: Any, controls: Mapping[int, AddedToken]) -> Any:  # noqa: ANN401 - JSON
        """Mark the texts of a message, a tool or a document at every depth. Texts may overlap: each
        beginning counts."""
        if isinstance(value, str):
            if not any(t.text in value for t in controls.values()):
                return value
            starts = re.compile(f"(?={any_of([t.text for t in controls.values()])})(.)", re.S)
            return starts.sub(lambda f: _MARK.format(ord(f[1])), value)
        if isinstance(value, Mapping):
            return {k: v if k in ("role", "type") else self._mark(v, controls)
                    for k, v in value.items()}
        return [self._mark(v, controls) for v in value] if isinstance(value, list) else value

    @cached_property
    def _names(self) -> dict[str, str]:
        return {t.text: _NAME.format(i) for i, t in self._controls.items()}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(any_of([t.text for t in self.tokenizer.added.values() if t.text]))

    @cached_property
    def _renamed(self) -> Callable[[str], list[int]]:
        encode = renamed(self.tokenizer, self._names).encode
        return lambda text: encode(text, special=True)

    @cached_property
    def _unknown(self) -> set[int]:
        """Hold the token of what the vocabulary cannot write, which any text may become."""
        names = {token_text(self.tokenizer.settings.data.get("unk_token")), "<unk>", "[UNK]"}
        return {i for i, t in self._controls.items() if t.text in names}


def _is_tag(text: str) -> bool:
    """Tell <think> and [INST] from added words and runs of spaces."""
    ends = text[:1] + text[-1:]
    return any(c.isalnum() for c in text) and not any(c.isalnum() or c.isspace() for c in ends)


def _unmark(text: str) -> str:
    """Return a text with its first characters back. A number that is no character stays."""
    return _MARKED.sub(lambda f: chr(int(f[1], 16)) if len(f[1]) < 6 else f[0], text)
