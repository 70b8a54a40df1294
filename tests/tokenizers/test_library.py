"""Turn what the tokenizers libraries raise into errors of ours, panics too."""

import itertools
import threading
import time

import numpy as np
import pytest

from core.errors import TokenizerError
from models.checkpoints.base import SHIPPED
from models.tokenizers.base import load_tokenizer
from models.tokenizers.library import library_errors


class PanicException(BaseException):
    """Stands for pyo3_runtime.PanicException, which is no Exception."""


class Panics:
    """Raises in each call, as `tokenizers` does for some tokenizer.json."""

    def __getattr__(self, name):
        def call(*args, **kwargs):
            raise PanicException("index out of bounds")
        return call


@pytest.mark.parametrize("name", ["stories-qwen2", "stories-llama2"])
def test_a_panic_is_an_error(name):
    tokenizer = load_tokenizer(SHIPPED / name)
    setattr(tokenizer, "_tokenizer" if name == "stories-qwen2" else "processor", Panics())
    with pytest.raises(TokenizerError, match="cannot encode this text: index out of bounds"):
        tokenizer.encode("a")
    if name == "stories-qwen2":
        with pytest.raises(TokenizerError, match="cannot decode its own ids: index out of bounds"):
            tokenizer.decode([1])
        with pytest.raises(TokenizerError, match="index out of bounds"):
            tokenizer.token(1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_program_goes_on(kind):
    with pytest.raises(kind), library_errors("it failed"):
        raise kind


ODD = [None, 5, b"a", ["a"], {}, object(), float("nan"), int]


@pytest.mark.parametrize("name", ["stories-qwen2", "stories-llama2"])
def test_odd_texts_and_ids(name):
    tokenizer = load_tokenizer(SHIPPED / name)
    for value in ODD:
        with pytest.raises(TokenizerError, match="a tokenizer encodes a text, found "):
            tokenizer.encode(value)
        with pytest.raises(TokenizerError, match="expected token ids"):
            tokenizer.token("5" if isinstance(value, int) else value)
        if value != {}:  # no ids
            with pytest.raises(TokenizerError, match="expected token ids"):
                tokenizer.decode(value)
    for i in (-1, -2**63, 2**31, 2**200, tokenizer.size, np.int64(-5)):
        assert tokenizer.token(i) is None
    assert tokenizer.token(np.uint8(5)) == tokenizer.token(5)
    assert tokenizer.decode(np.array([50, 51])) == tokenizer.decode([50, 51])
    with pytest.raises(TokenizerError):
        tokenizer.encode("\udcff")


@pytest.mark.parametrize("name", ["stories-llama3", "stories-llama2"])
def test_a_long_text_lets_other_threads_run(name):
    """A server answers meanwhile. Where Python's lock is kept, a thread that looks at the clock
    misses nearly all of the time."""
    tokenizer, text = load_tokenizer(SHIPPED / name), "A girl named Lily. " * 20_000
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        start = time.perf_counter()
        ids = tokenizer.encode(text)
        end = time.perf_counter()
    finally:
        done.set()
        thread.join()
    seen = [start, *(at for at in ticks if start < at < end), end]
    assert max(b - a for a, b in itertools.pairwise(seen)) < (end - start) / 2
    assert ids[:40] == tokenizer.encode(text[:1000])[:40] and len(ids) > 20_000
