"""Tests what stands around the text: pipes, closed streams, control characters, long messages,
narrow tables."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

import models.run
from core import output
from core.errors import PromptError
from core.verify.compare import Comparison
from core.verify.verdict import CheckRow, Tally
from models.analysis import bench_report
from models.cli import chat, console, report
from models.cli.command import command

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs a shell")


def test_an_open_pipe_is_named_after_a_second():
    process = subprocess.Popen([sys.executable, "-m", "models.run", "--max-new-tokens", "2"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stderr is not None
    assert process.stderr.readline() == ("waiting for a prompt on standard input; --prompt gives "
                                         "one, and < /dev/null takes the default\n")
    time.sleep(0.1)
    out, err = process.communicate("A cat", timeout=60)
    assert out.startswith("A cat") and process.returncode == 0 and "waiting" not in err


def test_a_prompt_that_comes_at_once_is_not_waited_for(run_cli):
    assert "waiting" not in run_cli("--max-new-tokens", "2", stdin="A cat", code=0).stderr


def test_standard_input_is_bounded(monkeypatch):
    monkeypatch.setattr(models.run, "_PROMPT_LIMIT", 100)
    args = models.run.parser().parse_args([])
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 100))
    assert models.run._prompt(args) == "x" * 100
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 101))
    with pytest.raises(PromptError, match="more than 100 characters"):
        models.run._prompt(args)


@POSIX
@pytest.mark.parametrize("arguments", ["run --max-new-tokens 2", "run --json", "doctor", "plan",
                                       "run --explain dot --max-new-tokens 2"])
def test_closed_streams(arguments):
    shell = f"{sys.executable} -m models.{arguments} < /dev/null"
    done = subprocess.run(f"{shell} >&-", shell=True, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: standard output is closed")
    both = subprocess.run(f"{shell} >&- 2>&-", shell=True, capture_output=True, timeout=60)
    assert both.returncode == 2
    quiet = subprocess.run(f"{shell} 2>&-", shell=True, capture_output=True, text=True, timeout=60)
    plain = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=60)
    assert quiet.returncode == plain.returncode
    if arguments.startswith("run --") and "json" not in arguments:  # others show free memory, times
        assert quiet.stdout == plain.stdout


def test_control_characters_are_shown():
    assert output.escaped("a\x1b[2J\rb\x07\x9b1m\u202ec\td\n") == \
        "a\\x1b[2J\\rb\\x07\\x9b1m\\u202ec\td\n"


def said_by(text, capsys):
    @command
    def main():
        raise PromptError(text)
    assert main() == 2
    return capsys.readouterr().err


def test_messages_fit_on_a_screen(capsys):
    assert said_by("a\x1b[31m", capsys) == "error: a\\x1b[31m\n"
    many = said_by("\n".join(map(str, range(100))), capsys)
    assert many.count("\n") == 24 and many.endswith("... (77 lines more)\n")
    long = said_by("x" * 10**6, capsys)
    assert len(long) <= 2001 and re.search(r"\.\.\. \(998,\d\d\d characters more\)\n$", long)
    exact = "\n".join("y" * 80 for _ in range(24))
    assert console.shortened(exact) == exact


def test_names_in_a_folder_are_escaped(run_cli, tmp_path):
    folder = tmp_path / "a\x1b[31mb"
    folder.mkdir()
    done = run_cli("--model", str(folder), code=2)
    assert "\x1b" not in done.stderr and "\\x1b[31mb" in done.stderr
    done = run_cli("--model", "x" * 5000, code=2)
    assert len(done.stderr) < 2010 and "Traceback" not in done.stderr


@pytest.fixture
def narrow(monkeypatch):
    """Return the text of a terminal of 80 columns."""
    written = io.StringIO()

    def opened(*, stderr=False):
        return console.PlainConsole(file=written, width=80, force_terminal=True, color_system=None)
    for module in (report, bench_report):
        monkeypatch.setattr(module, "open_console", opened)
    monkeypatch.setattr(Console, "width", 80)
    return written


def test_tables_of_80_columns_cut_no_number(narrow):
    tally = Tally(["reference"])
    for i, op in enumerate(("attention", "add_norm_quantized_gate_up")):
        worst = Comparison(True, 0.53, 3.5e-15, 1.25e-07, 2.75e-07, (0, 1), "near")
        tally._rows[op, "k", "reference"] = CheckRow(
            op, f"cpu_numpy:{op}", "reference", 12345 + i, 0, worst, f"layers.{i}.{op}")
    report.checked(tally)
    row = {"shape": "llama3.2-1b", "quantize": "int4-symmetric", "prefill_tokens_per_s": 12345.6,
           "time_to_first_token_s": 1.2345, "decode_tokens_per_s": 1298.7, "decode_spread": 0.123,
           "host_step_s": 0.00123, "read_bytes_per_s": 3.2109e12, "bandwidth_share": 0.87,
           "ledger": "0123456789ab", "ok": True, "backend": "b", "device": "d", "verdict": "v",
           "profile": []}
    bench_report.benchmark([row])
    shown = narrow.getvalue()
    for number in ("3.5e-15", "2.8e-07", "0.53", "12345", "12346", "12346", "1234.5", "1298.7",
                   "12.3%", "1.230", "3210.9", "87%"):
        assert number in shown, (number, shown)
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80


def test_what_a_plugin_says_is_no_markup(narrow):
    table = console.make_table("a", title="t")
    table.add_row("[/red] \x1b[31m [bold]x")
    report.open_console().print(table, "[/b]")
    shown = narrow.getvalue()
    assert "[/red] \\x1b[31m [bold]x" in shown and "[/b]" in shown and "\x1b" not in shown


def test_one_bad_message_does_not_end_a_chat(run_cli):
    done = run_cli("--chat", "--model", "stories-qwen2", "--max-context", "160", code=0,
                   stdin=f"{'word ' * 400}\nTell me a story about a fox.\n\udcff\n"
                         "Tell me a story about a bear.\n".encode("utf-8", "surrogateescape")
                         .decode("utf-8", "replace"))
    first, second, *_ = [line for line in done.stdout.splitlines() if line]
    assert "error: the prompt has" in done.stderr
    assert "fox" in first and second


def test_a_message_is_bounded(monkeypatch):
    monkeypatch.setattr(chat, "LONGEST", 10)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{'x' * 10}\n{'x' * 11}\n{'y' * 95}\nz\n"))
    said = []
    while True:
        try:
            said.append(chat._line())
        except PromptError as error:
            said.append("an error" if "more than 10 characters" in str(error) else "")
        except EOFError:
            break
    assert said == ["x" * 10 + "\n", "an error", "an error", "z\n"]
