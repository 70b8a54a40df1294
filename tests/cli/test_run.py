"""The command line: tests its text, its JSON, its exit codes."""

import json
import signal
import subprocess
import sys
import time

from models.checkpoints.base import shipped_models


def test_default_story(run_cli):
    done = run_cli(code=0)
    assert done.stdout.startswith("Once upon a time") and len(done.stdout) > 200
    assert "tokens/s; ledger " in done.stderr and "not checked (--check reference)" in done.stderr


def test_prompt_from_stdin_and_ids(run_cli):
    text = run_cli("--max-new-tokens", "8", stdin="Once upon a time\n", code=0).stdout
    assert run_cli("--max-new-tokens", "8", "--prompt", "Once upon a time", code=0).stdout == text
    ids = json.loads(run_cli("--json", "--max-new-tokens", "8", code=0).stdout)["prompt_tokens"]
    listed = ",".join(map(str, ids))
    by_ids = run_cli("--max-new-tokens", "8", "--prompt-ids", listed, code=0).stdout
    assert by_ids == text


def test_json(run_cli):
    found = json.loads(run_cli("--json", "--max-new-tokens", "12", code=0).stdout)
    assert list(found) == ["prompt_tokens", "tokens", "text", "finish_reason", "nonfinite",
                           "stats", "sampling", "stop_ids"]
    assert found["nonfinite"] is None
    assert len(found["tokens"]) == 12 and found["finish_reason"] == "length"
    assert found["stats"]["new_tokens"] == 12 and len(found["stats"]["ledger"]) == 12
    assert found["stats"]["correctness"].startswith("not checked")


def test_check_against_the_reference(run_cli):
    for name in shipped_models():
        done = run_cli("--model", name, "--check", "reference,cpu_numpy", "--max-new-tokens", "3",
                       "--temperature", "0.7", "--seed", "4", code=0)
        assert "agrees with reference, cpu_numpy on 10 of 10 ops" in done.stderr
        assert all(op in done.stderr for op in ("attention", "sample", "advance", "kv_cache_write"))


def test_explain(run_cli):
    done = run_cli("--explain", "--max-new-tokens", "2", "--kernel", "attention=cpu_numpy", code=0)
    assert "cpu_numpy:attention" in done.stderr and "gate_up_swiglu" in done.stderr
    plain = run_cli("--explain", "--no-fusion", "--max-new-tokens", "2", code=0)
    assert "gate_up_swiglu" not in plain.stderr
    assert "as separate buffers; KV cache: " in plain.stderr
    found = json.loads(run_cli("--explain", "--json", "--max-new-tokens", "2", code=0).stdout)
    assert found["ledger"]["entries"][0]["node"] == "embed"
    assert found["ledger"]["hash"] == found["stats"]["ledger"]
    found = run_cli("--explain", "json", "--max-new-tokens", "2", code=0).stdout
    assert json.loads(found)["entries"][0]["node"] == "embed"
    dot = run_cli("--explain", "dot", "--max-new-tokens", "2", code=0).stdout
    assert dot.startswith("digraph") and dot.endswith("}\n")
    graph = run_cli("--explain", "graph", "--max-new-tokens", "2", code=0).stdout
    assert "layers.0.attention" in graph and "# weight" in graph and "Once" not in graph


def test_list_backends(run_cli):
    listed = run_cli("--list-backends", code=0).stdout
    assert "cpu_numpy" in listed and "kernelyard-cpu-numpy 0.1.0" in listed


def test_chat(run_cli):
    done = run_cli("--chat", "--model", "stories-qwen2", code=0,
                   stdin="Tell me a story about a fox.\n/reset\n"
                         "Tell me a story about a bear.\n/exit\n")
    first, second = done.stdout.strip().split("\n")[:2]
    assert len(first) > 100 and "fox" in first and "bear" in second


def test_chat_forgets_when_the_context_is_full(run_cli):
    done = run_cli("--chat", "--model", "stories-qwen2", "--max-context", "160", "--check",
                   "cpu_numpy", "--max-new-tokens", "30", code=0,
                   stdin="Tell me a story about a fox.\n" * 4)
    assert "the oldest turn is forgotten" in done.stderr and "cross-check" in done.stderr
    assert len(done.stdout.strip().splitlines()) == 4


def test_interrupted_run_prints_what_it_has(tmp_path):
    code = ("import sys, time; from models import run; from models.tokenizers import streaming\n"
            "real = streaming.IncrementalDecoder.push\n"
            "def slow(self, token):\n    time.sleep(0.1); return real(self, token)\n"
            "streaming.IncrementalDecoder.push = slow\n"
            "sys.exit(run.main(['--max-new-tokens', '400']))")
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               # a shell that runs us in the background has SIGINT ignored
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert process.stdout is not None
    shown = process.stdout.read(30)  # it is in the middle of the story
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert (shown + out).startswith("Once upon a time") and "interrupted: prefill" in err
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(f"{sys.executable} -m models.run < /dev/null | head -c 10", shell=True,
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == "Once upon " and "Traceback" not in done.stderr
