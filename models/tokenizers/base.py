"""Turns text into ids and back: SentencePiece and tokenizer.json behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.errors import ConfigError, TokenizerError
from models.json_reader import ConfigReader
from models.tokenizers.added import special_texts
from models.tokenizers.chat_template import DEFAULT, ChatTemplate, load_template, read_template
from models.tokenizers.class_rules import note_class
from models.tokenizers.json_tokenizer import JsonTokenizer
from models.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from models.tokenizers.settings import read_settings
from models.tokenizers.tiktoken_ranks import is_tiktoken

LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")
_FILES = ("tokenizer.json", "tokenizer.model")
_OTHERS = ("vocab.json", "merges.txt", "tekken.json", "tiktoken.model", "vocab.txt", "spiece.model")


class Tokenizer(Protocol):
    """Holds what generation needs.

    size            one more than the largest id
    base_size       the same without added tokens
    special_tokens  texts and ids of the tokens that `decode` hides
    notes           what a user should know of how the files were read
    """

    size: int
    base_size: int
    bos_id: int | None
    eos_id: int | None
    template: ChatTemplate | None
    notes: list[str]

    @property
    def special_tokens(self) -> Mapping[str, int]: ...

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return ids of a prompt, with BOS where the model's files ask for it. With `special` the
        text brings its own special tokens (a rendered chat template) and nothing is added.

        Like the others it raises TokenizerError for what is no text, or no id."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return text without special tokens. Bytes that are no valid UTF-8 (yet) become U+FFFD."""

    def token(self, i: int) -> str | None:
        """Return the token of an id as its file writes it, None for an id without one."""


@dataclass
class NoTokenizer:
    """Stands in for a model without tokenizer, which runs on ids. `reason` says what is missing."""

    reason: str
    size: int = 0
    base_size: int = 0
    bos_id: int | None = None
    eos_id: int | None = None
    template: ChatTemplate | None = None
    notes: list[str] = field(default_factory=list)
    special_tokens: Mapping[str, int] = field(default_factory=dict)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        raise TokenizerError(f"{self.reason}; give token ids instead of text (--prompt-ids)")

    def decode(self, ids: Sequence[int]) -> str:
        """Nothing: there is no text."""
        return ""

    def token(self, i: int) -> str | None:
        return None


def load_tokenizer(folder: Path, only: str | None = None) -> Tokenizer:
    """Load tokenizer.json if there, else tokenizer.model, or `only` one of the two; without either,
    a NoTokenizer. Raises TokenizerError for files that cannot be used."""
    settings, notes = read_settings(folder)
    template = load_template(folder, settings)
    llama = settings.data.get("tokenizer_class") in LLAMA
    file = next((folder / name for name in _FILES
                 if only in (None, name) and (folder / name).exists()), None)
    tokenizer: JsonTokenizer | SentencePieceTokenizer
    if file is None:
        there = [name for name in _OTHERS if (folder / name).exists()]
        return NoTokenizer(
            f"{folder} has no {' and no '.join([only] if only else _FILES)}"
            + (f" (it has {', '.join(there)}, which are not read: `AutoTokenizer.from_pretrained("
               "FOLDER).save_pretrained(FOLDER)` of transformers makes tokenizer.json)"
               if there else "") + "; copy the one that the model was published with")
    if file.name == "tokenizer.json":
        plain = settings.get("legacy", bool, False) and settings.get("add_prefix_space", bool, True)
        once = llama and not plain and _is_llama(folder)
        tokenizer = JsonTokenizer(file, settings, template, prefix_once=once)
    else:
        if is_tiktoken(file):
            raise TokenizerError(f"{file} holds tiktoken's ranks, which name no special tokens; "
                                 "copy the tokenizer.json that the model was published with")
        notes += note_class(settings, "tokenizer.model")
        legacy = settings.get("legacy", bool, not llama)
        tokenizer = SentencePieceTokenizer(
            file, ConfigReader({**settings.data, "legacy": legacy}, settings.where), template)
    tokenizer.notes[:0] = notes
    if template is not None:
        template.name_tokens(bos_token=_text(tokenizer, tokenizer.bos_id),
                             eos_token=_text(tokenizer, tokenizer.eos_id))
    return tokenizer


def choose_template(tokenizer: Tokenizer, asked: str | None = None) -> ChatTemplate | None:
    """Return the template of that name, or the one in that file; the tokenizer's own, if any, for
    None. Raises TokenizerError listing the names where it is neither."""
    own = tokenizer.template
    if asked is None or (own is not None and asked in own.sources):
        return own if asked is None or own is None else own.only(asked)
    if not Path(asked).expanduser().is_file():
        names = ", ".join(sorted(own.sources)) if own is not None else "none"
        raise TokenizerError(f"chat template {asked!r} is neither a file nor one of the model's, "
                             f"which are: {names}")
    settings = getattr(tokenizer, "settings", None)
    made = ChatTemplate({DEFAULT: read_template(Path(asked).expanduser())}, own.variables if own
                        else special_texts(settings) if settings else {})
    made.name_tokens(bos_token=_text(tokenizer, tokenizer.bos_id),
                     eos_token=_text(tokenizer, tokenizer.eos_id))
    return made


def _text(tokenizer: Tokenizer, i: int | None) -> str | None:
    return None if i is None else tokenizer.token(i)


def _is_llama(folder: Path) -> bool:
    """Tell whether config.json states the family for which transformers 5 makes the tokenizer anew
    and lets `legacy` decide; for others it takes tokenizer.json as it is."""
    try:
        config = ConfigReader.open(folder / "config.json")
    except ConfigError:
        return False
    return config.data.get("model_type") == "llama"
