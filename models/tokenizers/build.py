"""From a vocabulary to a tokenizer and back."""

from __future__ import annotations

from core.errors import TokenizerError
from models.json_reader import ConfigReader
from models.tokenizers.base import JsonTokenizer, SentencePieceTokenizer, Tokenizer
from models.tokenizers.byte_pairs import from_json, to_json
from models.tokenizers.chat_template import ChatTemplate
from models.tokenizers.sentencepiece_model import to_sentencepiece
from models.tokenizers.vocabulary import TokenType, Vocabulary


def build_tokenizer(v: Vocabulary, where: str) -> Tokenizer:
    """Runs in `tokenizers` or in SentencePiece. Raises TokenizerError naming `where`."""
    v.check(where)
    template = ChatTemplate(v.template, v.variables) if v.template else None
    settings = ConfigReader({**v.variables, "add_bos_token": v.add_bos}, where)
    try:
        if v.bpe:
            return JsonTokenizer(to_json(v), settings, template)
        return SentencePieceTokenizer(to_sentencepiece(v), settings, template)
    except (ValueError, OverflowError) as error:  # text that is not Unicode, types out of range
        raise TokenizerError(f"{where}: the vocabulary cannot be used: {error}") from None


def vocabulary_of(tokenizer: Tokenizer, where: str) -> Vocabulary:
    """Raises TokenizerError for a tokenizer of another kind than `build_tokenizer` makes."""
    template = tokenizer.template.source if tokenizer.template else None
    if isinstance(tokenizer, JsonTokenizer):
        v = from_json(tokenizer.to_json(), where)
        v.bos_id = v.bos_id if tokenizer.bos_id is None else tokenizer.bos_id
        v.eos_id, v.template = tokenizer.eos_id, template
        return v
    if isinstance(tokenizer, SentencePieceTokenizer):
        p = tokenizer.processor
        pieces = range(p.get_piece_size())
        types = [int(TokenType.UNKNOWN if p.is_unknown(i) else TokenType.CONTROL if p.is_control(i)
                     else TokenType.BYTE if p.is_byte(i) else TokenType.UNUSED if p.is_unused(i)
                     else TokenType.NORMAL) for i in pieces]
        v = Vocabulary(False, [p.id_to_piece(i) for i in pieces], types,
                       [float(p.get_score(i)) for i in pieces], bos_id=tokenizer.bos_id,
                       eos_id=tokenizer.eos_id, unk_id=p.unk_id() if p.unk_id() >= 0 else None,
                       add_bos=tokenizer.add_bos, template=template)
        added = {i: text for text, i in tokenizer.special_tokens.items() if i not in pieces}
        for i in range(len(pieces), tokenizer.size):
            v.tokens.append(added.get(i, f"[PAD{i}]"))
            v.types.append(int(TokenType.CONTROL if i in added else TokenType.UNUSED))
            v.scores.append(0.0)
        return v
    raise TokenizerError(f"{where}: a {type(tokenizer).__name__} cannot be written in this format, "
                         "expected tokenizer.json or tokenizer.model")
