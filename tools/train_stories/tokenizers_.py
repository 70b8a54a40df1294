"""Builds the tokenizers: sentencepiece as Llama 2 has it, byte-level BPE as Llama 3 and Qwen2."""

from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# The published split patterns differ in one place: how many digits make one piece.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = SPLIT.replace("DIGITS", "{1,3}")
QWEN2_SPLIT = SPLIT.replace("DIGITS", "")


def build_sentencepiece(folder: Path, corpus: Iterable[str], vocab_size: int) -> None:
    """Write ``tokenizer.model``, with Llama 2's settings."""
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=file,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )


def _byte_level(
    corpus: Iterable[str], split: str, vocab_size: int, specials: list[str]
) -> Tokenizer:
    """Train byte-level BPE; the special tokens come after the ordinary ones, as in the
    originals."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=split == LLAMA3_SPLIT))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in specials])
    return tokenizer


def build_llama3(folder: Path, corpus: Iterable[str], vocab_size: int, specials: list[str]) -> None:
    """Write ``tokenizer.json``, with Llama 3's split; the first special token opens each text."""
    tokenizer = _byte_level(corpus, LLAMA3_SPLIT, vocab_size, specials)
    begin = specials[0]
    opening = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin}:1 $B:1",
        special_tokens=[(begin, tokenizer.token_to_id(begin))],
    )
    byte_level = processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = processors.Sequence([byte_level, opening])
    tokenizer.save(str(folder / "tokenizer.json"))


def build_qwen2(folder: Path, corpus: Iterable[str], vocab_size: int, specials: list[str]) -> None:
    """Write ``tokenizer.json``, with Qwen2's split and NFC; no token is added to a text."""
    tokenizer = _byte_level(corpus, QWEN2_SPLIT, vocab_size, specials)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))
