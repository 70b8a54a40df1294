"""kernelyard batch: files of requests, results that a run goes on with, bad lines, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models import batch
from models.cli.results import Results
from models.serving.group import Group
from models.serving.request import Logprob

MODEL = ("--model", "stories-llama3")


def completion(custom_id: str, prompt: object = "Once upon a time", **body: object) -> dict:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions",
            "body": {"prompt": prompt, "max_tokens": 6, "temperature": 0, **body}}


def write(path, lines):
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(results):
    return {r["custom_id"]: r["response"]["body"]["choices"][0]["text"] for r in results}


@pytest.fixture
def requests(tmp_path):
    return write(tmp_path / "in.jsonl", [completion(f"r{i}", "A cat " * i) for i in range(1, 6)])


def test_results_go_to_standard_output(requests, capfd, tmp_path):
    assert batch.main([requests, *MODEL]) == 0
    out, err = capfd.readouterr()
    results = [json.loads(line) for line in out.splitlines()]
    assert sorted(texts(results)) == [f"r{i}" for i in range(1, 6)]
    assert all(r["error"] is None and r["response"]["status_code"] == 200 for r in results)
    assert "5 lines, 0 of them errors; 30 tokens; ledger " in err
    assert batch.main([requests, *MODEL, "-o", str(tmp_path / "o.jsonl")]) == 0
    assert texts(read(tmp_path / "o.jsonl")) == texts(results)


def test_bad_lines_are_errors_and_end_nothing(tmp_path, capfd):
    out = tmp_path / "out.jsonl"
    file = write(tmp_path / "in.jsonl", [
        "{", completion("good"), "", "[]", completion("good"), completion("n", suffix="x"),
        completion("last"), "{}"])
    for _ in range(2):  # errors stand there once, and count each time
        assert batch.main([file, *MODEL, "-o", str(out)]) == 2
        results = read(out)
        assert [(r["custom_id"], r["error"]["line"]) for r in results if r["error"]] == [
            (None, 1), (None, 4), (None, 5), ("n", 6), (None, 8)]
        assert [r["custom_id"] for r in results if not r["error"]] == ["good", "last"]
        assert "7 lines, 5 of them errors" in capfd.readouterr().err


def test_a_corrected_line_is_computed(tmp_path):
    out = tmp_path / "out.jsonl"
    file = write(tmp_path / "in.jsonl", [completion("a"), completion("a")])
    assert batch.main([file, *MODEL, "-o", str(out)]) == 2
    write(tmp_path / "in.jsonl", [completion("a"), completion("b")])
    batch.main([file, *MODEL, "-o", str(out)])
    assert [r["custom_id"] for r in read(out)] == [None, "a", "b"]


@pytest.mark.parametrize("left", [0, 1, 30, 200])
def test_a_half_written_line_is_dropped(requests, tmp_path, left):
    out = tmp_path / "out.jsonl"
    assert batch.main([requests, *MODEL, "-o", str(out)]) == 0
    whole = out.read_bytes()
    kept, last = whole.splitlines(keepends=True)[:3], whole.splitlines()[3]
    assert left < len(last)
    out.write_bytes(b"".join(kept) + last[:left])
    assert batch.main([requests, *MODEL, "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"".join(kept)) and len(read(out)) == 5
    assert texts(read(out)) == texts(json.loads(line) for line in whole.splitlines())


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_run_goes_on(tmp_path):
    file = write(tmp_path / "in.jsonl", [completion(f"r{i}", [5 + i, 9], max_tokens=30,
                                                    ignore_eos=True) for i in range(24)])
    out, command = tmp_path / "out.jsonl", [file, *MODEL, "--max-num-seqs", "2", "-o"]
    process = subprocess.Popen([sys.executable, "-m", "kernelyard", "batch", *command, str(out)],
                               stderr=subprocess.DEVNULL)
    while not out.exists() or out.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    there = out.read_bytes().count(b"\n")
    assert 3 <= there < 24
    assert batch.main([*command, str(out)]) == 0
    results = read(out)
    assert sorted(r["custom_id"] for r in results) == sorted(f"r{i}" for i in range(24))
    assert batch.main([*command, str(tmp_path / "at_once.jsonl")]) == 0
    assert texts(results) == texts(read(tmp_path / "at_once.jsonl"))


def test_an_interrupted_run_goes_on(requests, tmp_path, monkeypatch, capfd):
    out, add = tmp_path / "out.jsonl", Results.add

    def interrupt(self, result):
        add(self, result)
        raise KeyboardInterrupt
    monkeypatch.setattr(Results, "add", interrupt)
    assert batch.main([requests, *MODEL, "-o", str(out)]) == 130
    assert len(read(out)) == 1 and capfd.readouterr().err.endswith("interrupted\n")
    monkeypatch.undo()
    assert batch.main([requests, *MODEL, "-o", str(out)]) == 0
    assert len(read(out)) == 5 and "has 1 results" in capfd.readouterr().err


@pytest.mark.parametrize("content", [
    "my thesis\n", '{"id": "batch_req_1"}\n', "no end of line", "[1]\n", "null\n",
    '{"custom_id": null, "response": null, "error": null}\n', "\n"])
def test_a_file_of_something_else_is_kept(requests, tmp_path, capfd, content):
    out = tmp_path / "out.jsonl"
    out.write_text(content)
    assert batch.main([requests, *MODEL, "-o", str(out)]) == 2
    assert out.read_text() == content
    assert "has no result of a batch in line 1" in capfd.readouterr().err


def test_files_that_cannot_be_used(requests, tmp_path, capfd):
    for arguments, said in (
            ([str(tmp_path / "none.jsonl")], "cannot be read"), ([str(tmp_path)], "cannot be read"),
            ([requests, "-o", requests], "the file of the requests"),
            ([requests, "-o", str(tmp_path)], "cannot be used"),
            ([requests, "-o", str(tmp_path / "no" / "o.jsonl")], "cannot be used")):
        assert batch.main([*arguments, *MODEL]) == 2
        err = capfd.readouterr().err
        assert said in err and err.count("\n") == 1


def test_load_and_engine_options(requests, tmp_path, capfd):
    """Count what they change: 8-bit weights, and a pool that holds one request at a time."""
    out = tmp_path / "out.jsonl"
    assert batch.main([requests, *MODEL, "--quantize", "int8", "--kv-blocks", "3", "-o", str(out),
                       "--max-context", "48", "--served-model-name", "mine"]) == 0
    assert {r["response"]["body"]["model"] for r in read(out)} == {"mine"}
    assert batch.main([requests, *MODEL, "--kv-blocks", "0"]) == 2
    assert "kv_blocks is 0" in capfd.readouterr().err


def test_logits_that_are_not_finite(tmp_path, model_copy, capfd):
    """End one line with an error and exit code 1, also where only a log-probability shows it."""
    folder, out = model_copy("stories-llama2"), tmp_path / "out.jsonl"
    tensors = load_file(folder / "model.safetensors")
    (name,) = [n for n in tensors if "embed_tokens" in n]
    tensors[name] = tensors[name].copy()
    tensors[name][300] = np.nan
    save_file(tensors, folder / "model.safetensors")
    file = write(tmp_path / "in.jsonl", [
        completion("bad", [5, 300]), completion("good", [5, 6], logit_bias={"300": -100})])
    assert batch.main([file, "--model", str(folder), "-o", str(out)]) == 1
    errors = {r["custom_id"]: r["error"] and r["error"]["code"] for r in read(out)}
    assert errors == {"bad": "nonfinite_logits", "good": None}


def test_nan_among_log_probabilities(tmp_path, monkeypatch):
    """Devices that keep logits show it there alone."""
    logprobs = Group._logprobs
    monkeypatch.setattr(Group, "_logprobs", lambda self, token, *rest: {
        **logprobs(self, token, *rest), token: Logprob(float("nan"))})
    out = tmp_path / "out.jsonl"
    file = write(tmp_path / "in.jsonl", [completion("a", logprobs=1), completion("b")])
    assert batch.main([file, *MODEL, "-o", str(out)]) == 1
    assert {r["custom_id"]: bool(r["error"]) for r in read(out)} == {"a": True, "b": False}


def test_an_empty_file(tmp_path, capfd):
    assert batch.main([write(tmp_path / "in.jsonl", ["", "  "]), *MODEL]) == 0
    assert capfd.readouterr().out == ""


def test_a_run_that_cannot_begin_leaves_no_file(requests, tmp_path, capfd):
    out = tmp_path / "out.jsonl"
    assert batch.main([requests, *MODEL, "--max-context", "0", "-o", str(out)]) == 2
    assert not out.exists() and capfd.readouterr().err.startswith("error: ")
    out.write_text("")
    assert batch.main([requests, "--model", "none", "-o", str(out)]) == 2
