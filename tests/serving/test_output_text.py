"""Tests the text of a request: stop strings over borders of tokens, stop ids, and what ends it."""

import itertools

import pytest

from core.errors import TokenizerError
from models.serving.params import SamplingParams
from models.serving.text import OutputText
from models.tokenizers.base import NoTokenizer


class PieceTokenizer:
    """Gives each id the bytes of one piece; special tokens have no text."""

    def __init__(self, pieces, special=()) -> None:
        self.pieces = [p.encode() if isinstance(p, str) else p for p in pieces]
        self.special_tokens = {t: len(self.pieces) + i for i, t in enumerate(special)}

    def decode(self, ids) -> str:
        kept = [self.pieces[i] for i in ids if i < len(self.pieces)]
        return b"".join(kept).decode(errors="replace")


def run(pieces, special=(), ends=None, **params) -> tuple[OutputText, list[str], int]:
    """Push one token for each piece until the text ends; `ends` is the scheduler's reason at the
    last one. Returns the text, what each push returned, and how many tokens were taken."""
    tokenizer = PieceTokenizer(pieces, special)
    text, shown = OutputText(tokenizer, [], SamplingParams(**params), {
        len(pieces) + len(special) - 1} if ends and ends[0] == "stop" else ()), []
    for i in range(len(pieces) + len(special)):
        last = i == len(pieces) + len(special) - 1
        shown.append(text.push(i, *(ends if last and ends else ())))
        if text.finish_reason:
            break
    assert "".join(shown) == text.text
    return text, shown, len(shown)


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_cut_at_every_border(include):
    whole, stop = "one STOP two", "STOP"
    for cuts in itertools.chain.from_iterable(
            itertools.combinations(range(1, len(whole)), n) for n in range(5)):
        borders = [0, *cuts, len(whole)]
        pieces = [whole[a:b] for a, b in itertools.pairwise(borders)]
        text, shown, _ = run(pieces, stop=stop, include_stop_str_in_output=include)
        assert text.text == ("one STOP" if include else "one "), pieces
        assert (text.finish_reason, text.stop_reason) == ("stop", "STOP")
        assert include or not any("S" in piece for piece in shown)


def test_the_tokens_of_a_stop_string_are_counted_to_its_last():
    assert run(["a", "S", "TO", "P b", "c"], stop="STOP")[2] == 4


def test_what_began_like_a_stop_string_is_shown_at_the_end():
    text, shown, _ = run(["a", " ST", "O"], stop="STOP", ends=("length",))
    assert text.text == "a STO" and shown == ["a", " ", "STO"]
    assert (text.finish_reason, text.stop_reason) == ("length", None)


def test_the_first_of_several_stop_strings_counts():
    text, _, _ = run(["x two one"], stop=["one", "two"])
    assert text.text == "x " and text.stop_reason == "two"


def test_a_stop_string_at_the_last_token_is_a_stop():
    text, _, _ = run(["a", "END"], stop="END", ends=("length",))
    assert (text.text, text.finish_reason, text.stop_reason) == ("a", "stop", "END")


@pytest.mark.parametrize(("include", "shown"), [(False, "a"), (True, "ab")])
def test_a_stop_id_is_no_part_of_the_text(include, shown):
    text, _, _ = run(["a", "b"], ends=("stop", 1), include_stop_str_in_output=include)
    assert (text.text, text.finish_reason, text.stop_reason) == (shown, "stop", 1)


def test_stop_strings_see_special_tokens():
    text, _, _ = run(["a"], special=["<end>"], stop="<end>")
    assert (text.text, text.finish_reason, text.stop_reason) == ("a", "stop", "<end>")


def test_min_tokens_spare_stop_strings():
    pieces = ["x", "END", "EN", "D", "END", "more"]
    assert run(pieces, stop="END")[2] == 2
    text, _, tokens = run(pieces, stop="END", min_tokens=3)
    assert text.text == "xENDEND" and tokens == 5, "one that began before does not count"


def test_half_a_character_is_held_back():
    euro = "€".encode()
    text, shown, _ = run([euro[:1], euro[1:2], euro[2:], b"!"], ends=("length",))
    assert shown == ["", "", "€", "!"] and text.text == "€!"
    text, shown, _ = run([b"a", euro[:2]], ends=("length",))
    assert shown == ["a", "\ufffd"] and text.text == "a\ufffd"


def test_abort_shows_what_was_held_back():
    text = OutputText(PieceTokenizer(["a ST"]), [], SamplingParams(stop="STOP"))
    assert text.push(0) == "a " and text.finish_reason is None
    assert text.abort() == "ST" and text.finish_reason == "abort" and text.text == "a ST"


def test_stop_strings_need_a_tokenizer():
    nothing = NoTokenizer("the folder has no tokenizer")
    with pytest.raises(TokenizerError, match=r"no tokenizer; without it .*'END'"):
        OutputText(nothing, [1], SamplingParams(stop="END"))
    assert OutputText(nothing, [1], SamplingParams()).push(5) == ""
