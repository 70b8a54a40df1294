"""Makes a tokenizer of a vocabulary, and the other way."""

from __future__ import annotations

from core.errors import TokenizerError
from models.json_reader import ConfigReader
from models.tokenizers.base import Tokenizer
from models.tokenizers.byte_pairs import from_json, to_json
from models.tokenizers.chat_template import ChatTemplate
from models.tokenizers.check import check_same, check_table
from models.tokenizers.json_tokenizer import JsonTokenizer
from models.tokenizers.sentencepiece_model import piece_types, to_sentencepiece
from models.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from models.tokenizers.vocabulary import TokenType, Vocabulary


def build_tokenizer(v: Vocabulary, where: str) -> Tokenizer:
    """Run a vocabulary in `tokenizers` or in SentencePiece. Raises TokenizerError naming `where`,
    also where the tokenizer made does not agree with the vocabulary."""
    v.check(where)
    template = ChatTemplate(v.templates, v.variables) if v.templates else None
    # a file may name an ordinary token, such as `!` for an unknown one: it stays ordinary
    normal = {text for text, kind in zip(v.tokens, v.types, strict=True)
              if kind == TokenType.NORMAL}
    named = {key: text for key, text in v.variables.items() if text not in normal}
    tokenizer: JsonTokenizer | SentencePieceTokenizer
    try:
        if v.bpe:
            tokenizer = JsonTokenizer(to_json(v), ConfigReader(named, where), template)
        else:
            settings = {**named, "add_bos_token": v.add_bos, "add_eos_token": v.add_eos,
                        "legacy": v.legacy, "added_tokens_decoder": {
                            str(i): t.as_json() for i, t in v.added_tokens().items()}}
            tokenizer = SentencePieceTokenizer(to_sentencepiece(v), ConfigReader(settings, where),
                                               template)
    except (ValueError, OverflowError) as error:  # text that is not Unicode, types out of range
        raise TokenizerError(f"{where}: the vocabulary cannot be used: {error}") from None
    tokenizer.bos_id, tokenizer.eos_id = v.bos_id, v.eos_id
    check_table(tokenizer, v, where)
    return tokenizer


def vocabulary_for(tokenizer: Tokenizer, where: str, target: str) -> Vocabulary:
    """The vocabulary, once it is certain that a tokenizer built from it gives equal ids. Raises
    TokenizerError for one that `target` cannot hold."""
    v = vocabulary_of(tokenizer, where)
    check_same(build_tokenizer(v, where), tokenizer, v, where, target)
    return v


def vocabulary_of(tokenizer: Tokenizer, where: str) -> Vocabulary:
    """Raises TokenizerError for a tokenizer of another kind than `build_tokenizer` makes."""
    templates = dict(tokenizer.template.sources) if tokenizer.template else {}
    if isinstance(tokenizer, JsonTokenizer):
        v = from_json(tokenizer.to_json(), where)
        v.bos_id = v.bos_id if tokenizer.bos_id is None else tokenizer.bos_id
        v.eos_id, v.templates = tokenizer.eos_id, templates
        return v
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _of_sentencepiece(tokenizer, templates)
    raise TokenizerError(f"{where}: a {type(tokenizer).__name__} cannot be written in this format, "
                         "expected tokenizer.json or tokenizer.model")


def _of_sentencepiece(tokenizer: SentencePieceTokenizer, templates: dict[str, str]) -> Vocabulary:
    p = tokenizer.processor
    types = piece_types(p.serialized_model_proto())
    tokens = [p.id_to_piece(i) for i in range(len(types))]
    scores = [float(p.get_score(i)) for i in range(len(types))]
    for i in range(len(types), tokenizer.size):
        tokens.append(f"[PAD{i}]")
        types.append(int(TokenType.UNUSED))
        scores.append(0.0)
    for i, token in tokenizer.added.items():
        tokens[i] = token.text
        if types[i] != TokenType.UNKNOWN:
            types[i] = int(TokenType.CONTROL if token.special else TokenType.USER_DEFINED)
    return Vocabulary(
        False, tokens, types, scores, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
        unk_id=p.unk_id() if p.unk_id() >= 0 else None, add_bos=tokenizer.add_bos,
        add_eos=tokenizer.add_eos, legacy=tokenizer.legacy, templates=templates,
        add_space_prefix=tokenizer.prefix and p.encode("a") != tokenizer.encode_bare("a"),
        added={i: t for i, t in tokenizer.added.items() if not t.plain})
