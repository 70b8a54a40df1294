"""Other engines beside ours: what is asked of them, what is made of their answers. A script stands
in for the Python that has them."""

import json
import sys

import pytest

from core.errors import OptionError
from core.installed.registry import default_registry
from models import bench
from models.analysis import bench_report
from models.analysis.peers import Peer, Workload, measure_peers
from models.checkpoints.base import read_checkpoint
from models.engine.load import settle_checkpoint
from models.engine.options import LoadOptions

WORK = Workload([[1, 2, 3], [4, 5]], [3, 3], 0.0, [[7, 8, 9], [7, 8, 9]], 2.0, 0.5)
HOT = Workload([[1, 2]], [3], 0.6, [[7, 8, 9]], 2.0)
ANSWERS = {
    "equal": "{'version': 'x 1', 'seconds': 0.5, 'first_s': 0.1, "
             "'tokens': [[7, 8, 9]] * len(asked['prompts'])}",
    "other": "{'version': 'x 1', 'seconds': 0.5, 'tokens': [[7, 1, 9], [7, 8, 9]]}",
    "short": "{'version': 'x 1', 'seconds': 0.5, 'tokens': [[7]] * 2}",
    "absent": "{'skipped': 'not installed'}", "fails": "1 / 0"}


@pytest.fixture
def python(tmp_path):
    """Return a function that makes an interpreter which gives an answer, whatever it is to run."""
    def make(answer: str) -> str:
        path = tmp_path / answer
        path.write_text(f"""#!{sys.executable}
import json, sys
assert sys.argv[1] == "-c"
name, model, asked, answer = sys.argv[3:]
asked = json.load(open(asked))
assert asked["dtype"] == "float32" and asked["gpu"] is False and model
json.dump({ANSWERS[answer]}, open(answer, "w"))
""")
        path.chmod(0o755)
        return str(path)
    return make


def rows(python: str, work: Workload, name: str = "transformers", quantize: str | None = None):
    registry, options = default_registry(), LoadOptions("cpu_numpy", quantize=quantize)
    config = settle_checkpoint(read_checkpoint("stories-llama3", registry), options, registry)
    return list(measure_peers([Peer(name, python)], config, [work]))


@pytest.mark.parametrize("name", ["transformers", "llama.cpp"])
def test_an_answer_is_compared(python, name, capsys):
    if name == "llama.cpp":
        pytest.importorskip("gguf")
    (row,) = rows(python("equal"), WORK, name)
    assert (row["peer"], row["version"], row["equal_tokens"]) == (name, "x 1", 6)
    assert (row["tokens_per_s"], row["our_tokens_per_s"]) == (12, 3)
    assert (row["prefill_tokens_per_s"], row["decode_tokens_per_s"]) == (50, 10)
    assert (row["our_prefill_tokens_per_s"], row["our_decode_tokens_per_s"]) == (10, 8 / 3)
    bench_report.peers([{"shape": "any", **row}])
    said = " ".join(capsys.readouterr().out.split())  # lines end where the terminal does
    assert "decode 10, ours 3, ratio 0.27; 6 tokens are equal" in said
    assert rows(python("other"), WORK, name)[0]["equal_tokens"] == 4
    assert rows(python("equal"), HOT, name)[0]["equal_tokens"] is None


@pytest.mark.parametrize(("answer", "reason"), [
    ("absent", "not installed"), ("fails", "it failed: ZeroDivisionError: division by zero"),
    ("short", "x 1 gave other numbers of tokens than asked")])
def test_what_cannot_be_compared_is_skipped_with_its_reason(python, answer, reason):
    (row,) = rows(python(answer), WORK)
    assert row["skipped"] == reason and "tokens_per_s" not in row


def test_a_format_that_cannot_hold_the_model_is_a_reason(python):
    (row,) = rows(python("equal"), WORK, quantize="int8")
    assert "transformers has no int8 products" in row["skipped"]


def test_a_python_without_the_peer_says_so(tmp_path):
    """Run the real process: in a Python that has nothing."""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    (row,) = rows(str(bare), WORK)
    assert row["skipped"].startswith("not installed in ") and "No module named" in row["skipped"]


@pytest.mark.parametrize(("given", "match"), [
    ("vllm", "expected transformers or llama.cpp"), ("llama.cpp=/nowhere", "no file /nowhere")])
def test_names_are_checked(given, match):
    with pytest.raises(OptionError, match=match):
        Peer.parse(given)


def test_the_bench_has_a_row_for_each(python, capsys):
    options = ["--model", "stories-llama3", "--prompt", "3", "--tokens", "3", "--batch", "2",
               "--peers", f"transformers={python('equal')}"]
    assert bench.main([*options, "--json"]) == 0
    ours, theirs = json.loads(capsys.readouterr().out)
    assert ours["sequences"] == theirs["sequences"] == 2 and theirs["peer"] == "transformers"
    assert 0 <= theirs["equal_tokens"] <= 6 and theirs["our_tokens_per_s"] > 0
    del options[6:8]  # one sequence
    assert bench.main([*options, "--repeat", "1", "--json"]) == 0
    ours, theirs = json.loads(capsys.readouterr().out)
    assert (theirs["sequences"], theirs["prompt_tokens"], theirs["tokens"]) == (1, 3, 3)
    assert theirs["our_decode_tokens_per_s"] == pytest.approx(ours["decode_tokens_per_s"])
    assert theirs["our_prefill_tokens_per_s"] == pytest.approx(ours["prefill_tokens_per_s"])
    assert bench.main([*options, "--op", "rope"]) == 2
    assert "--peers times whole models" in capsys.readouterr().err
