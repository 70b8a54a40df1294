"""Tries grammars as a process: a line of JSON in, a line of JSON out, within bounds.

It is a program of its own and imports nothing of the project. A grammar comes from anyone. One that
nests deeply overflows the stack of what compiles it, which ends the process, and others take
minutes; so each is compiled here first, and followed for some bytes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

SECONDS, MIB, STACK_KIB = 2, 1024, 2048  # a thread of the engine has 8 MiB of stack or so
STEPS = 32  # bytes for which a grammar is followed
#: llguidance's bounds on one grammar: what is compiled before the first token, and for each one
LIMITS: dict[str, Any] = {"initial_lexer_fuel": 250_000, "step_lexer_fuel": 50_000,
                          "step_max_items": 20_000, "max_lexer_states": 50_000,
                          "max_grammar_size": 100_000, "verbose_errors": False}
#: every token that fits may be sampled, not only the one that the tokenizer would choose
PREFIX = '%llguidance {"no_forcing": true}\n'
_EOS = 256


def main() -> None:
    """Answer until the input ends."""
    sys.path[:] = json.loads(sys.argv[1])  # the parent's: -I leaves out its environment's
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # on which an overflow is reported
    _limit()
    tokenizer = _bytes()
    for line in sys.stdin.buffer:
        signal.alarm(SECONDS)  # whose default is to end the process, inside any call
        problem = _problem(tokenizer, json.loads(line)["grammar"])
        signal.alarm(0)
        sys.stdout.write(json.dumps({"error": problem} if problem else {}) + "\n")
        sys.stdout.flush()


def _limit() -> None:
    try:
        import resource
        for kind, most in ((resource.RLIMIT_AS, MIB << 20), (resource.RLIMIT_CORE, 0),
                           (resource.RLIMIT_STACK, STACK_KIB << 10)):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most, hard))
    except (ImportError, OSError, ValueError):  # a system without this limit; time is bounded
        pass


def _bytes() -> Any:  # noqa: ANN401 - LLTokenizer
    """Return a tokenizer with a token for each byte."""
    from llguidance import LLTokenizer, TokenizerWrapper

    class Bytes:
        eos_token_id, bos_token_id, special_token_ids = _EOS, None, (_EOS,)
        tokens = (*(bytes([i]) for i in range(256)), b"</s>")

        def __call__(self, text: bytes) -> list[int]:
            return list(text)
    return LLTokenizer(TokenizerWrapper(Bytes()))


def _problem(tokenizer: Any, grammar: str) -> str:  # noqa: ANN401 - LLTokenizer
    """Return why a grammar cannot be used, nothing where it can."""
    from llguidance import LLMatcher, LLParserLimits
    matcher = LLMatcher(tokenizer, PREFIX + grammar, log_level=0, limits=LLParserLimits(**LIMITS))
    for step in range(STEPS):
        if matcher.is_error():
            return str(matcher.get_error())
        mask = matcher.compute_bitmask()
        if matcher.is_error():
            continue
        found = [i for i in range(_EOS) if mask[i // 8] >> i % 8 & 1]
        if not found:
            return "" if matcher.is_accepting() else "no text fits it"
        matcher.consume_token(found[step * 7 % len(found)])
    return ""


if __name__ == "__main__":
    main()
