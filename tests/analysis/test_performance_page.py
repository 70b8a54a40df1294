"""docs/performance.md and its plots come from committed records, and records from what measures."""

import dataclasses
import sys
from pathlib import Path

import pytest

from core.errors import InputError

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

from performance import goals, measure, page, records  # noqa: E402
from performance.tables import line, tables  # noqa: E402

H100 = "CuPy 14.2.0, CUDA 13.0, driver 580.1, GPU 0: NVIDIA H100 80GB HBM3 (sm_90)"
FACTS = {"date": "2026-11-28", "commit": "abc1234", "card": "a CPU", "command": "python -m models"}
ONE = {"shape": "llama3.2-1b", "backend": "cuda_cupy", "device": H100, "stored": "bf16, f32",
       "quantize": None, "prompt": 2048, "tokens": 32, "prefill_tokens_per_s": 204_800.0,
       "decode_tokens_per_s": 1_000.0, "chunk": 1024, "row_flops": 2_000, "head_flops": 500,
       "matrix_bytes": 1_550, "bandwidth_bytes_per_s": 3.1e6, "bandwidth_share": 0.5,
       "ledger": "0123456789ab", "verdict": "63 kernel calls of 2 layers checked, 0 wrong",
       "ok": True, "profile": [{"what": "decode", "step_s": 1e-3, "kernels": [
           {"node": "lm_head", "kernel": "cuda_cupy:linear", "calls": 1, "seconds": 5e-4,
            "nbytes": 1_000}]}]}
MANY = {"shape": "llama3.2-1b", "backend": "cuda_cupy", "device": H100, "stored": "bf16",
        "quantize": None, "sequences": 32, "prompt": 128, "tokens": 128, "step_s": 1.6e-3,
        "prefill_tokens_per_s": 1e5, "decode_tokens_per_s": 20_000.0, "roofline_share": 0.56,
        "read_bytes": 2e9, "bandwidth_bytes_per_s": 3.1e12, "ledger": "x", "ok": True,
        "verdict": "60 kernel calls checked, 0 wrong; 122 kernel calls checked, 0 wrong"}
PEER = {"peer": "llama.cpp", "version": "llama 1", "sequences": 32, "tokens_per_s": 9_000.0,
        "prefill_tokens_per_s": 40_000.0, "decode_tokens_per_s": 10_000.0, "ok": True}
SKIPPED = {"peer": "transformers", "sequences": 32, "ok": True,
           "skipped": "not installed in /home/me/bin/python (No module named 'torch')"}


def test_the_tables_are_those_of_the_records():
    text = page.PAGE.read_text()
    assert page.written(text, page.every()) == text, "run python tools/performance/page.py"
    for record in page.every():
        assert record.ok and record.commit and record.date and record.command, record
        assert str(ROOT) not in line(record) and "/home" not in line(record)


@pytest.mark.parametrize("path", sorted(page.DATA.glob("*.jsonl")), ids=lambda path: path.name)
def test_a_file_of_records_is_as_it_is_written(path, tmp_path):
    found = records.read(path)
    records.write(tmp_path / "again", found)
    assert (tmp_path / "again").read_text() == path.read_text()
    assert records.merged([], found) == found, "two records of one subject"


def test_one_sequence():
    decode, prefill, step = records.of_bench([ONE], FACTS)
    assert (decode.card, decode.threads, decode.weights) == ("NVIDIA H100 80GB HBM3", None, "bf16")
    assert (decode.tokens_per_s, decode.share, decode.flops) == (1_000, 0.5, 2_500)
    assert (prefill.seconds, prefill.nbytes) == (0.01, 2 * 1_550)
    assert prefill.flops == 2_048 * 2_000 + 500
    assert prefill.share == pytest.approx(prefill.flops / 0.01 / 790e12)
    assert prefill.note == "chunks of 1,024"
    assert (step.figure, step.share) == ("step", pytest.approx(1_000 / 1e-3 / 3.1e6))
    assert tables([step])["steps"].count("| lm_head | cuda_cupy:linear | 1 | 500.0 |") == 1


def test_a_peer_stands_beside_each_figure_and_one_that_is_not_there_says_why():
    decode, prefill = records.of_bench([MANY, PEER, {**PEER, "sequences": 8}, SKIPPED], FACTS)
    assert (decode.peers, prefill.peers) == ({"llama 1": 10_000}, {"llama 1": 40_000})
    assert decode.note == prefill.note == "transformers skipped: not installed"
    said = line(decode)
    for part in ("20,000/s", "56% of 3.10 TB/s", "llama 1: 10,000/s, ratio 2.00",
                 "goal 20,000 reached", "182 calls right", "NVIDIA H100 80GB HBM3", "; x;"):
        assert part in said, said
    wrong = line(dataclasses.replace(decode, ok=False, tokens_per_s=19_999.0))
    assert "goal 20,000 missed" in wrong and "NO: 60 kernel calls" in wrong


def test_goals_on_a_cpu_are_multiples_of_the_peer():
    (decode, prefill, _) = records.of_bench(
        [{**ONE, "backend": "cpu_numba,cpu_numpy", "device": "Numba 0.68 for znver4, 2 threads"},
         {**PEER, "sequences": 1, "decode_tokens_per_s": 900.0}], FACTS)
    assert (decode.card, decode.threads, decode.backend) == ("a CPU", 2, "cpu_numba")
    assert goals.judged(decode) == "1.2 × peer missed"
    assert goals.judged(prefill) == "1.0 × peer reached"


@pytest.mark.parametrize("text", ["{", "[]", '{"figure": "decode"}', '{"speed": 1}'])
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "f").write_text(f"{text}\n")
    with pytest.raises(InputError, match="line 1: expected a record"):
        records.read(tmp_path / "f")


def test_records_are_taken_in(tmp_path):
    decode, prefill = records.of_bench([MANY], {**FACTS, "commit": ""})
    new, into = tmp_path / "new.jsonl", tmp_path / "into.jsonl"
    records.write(into, [dataclasses.replace(decode, tokens_per_s=1.0, commit="old")])
    records.write(new, [decode, prefill])
    with pytest.raises(InputError, match="give it by --commit"):
        page.take(new, into, "")
    page.take(new, into, "abc1234")
    assert [(r.figure, r.tokens_per_s, r.commit) for r in records.read(into)] == [
        ("decode", 20_000, "abc1234"), ("prefill", 100_000, "abc1234")]
    records.write(new, [dataclasses.replace(decode, ok=False)])
    with pytest.raises(InputError, match="has no verdict that counts"):
        page.take(new, into, "abc1234")


def test_a_stage_measures(tmp_path, monkeypatch, capsys):
    """The stage runs on a CPU here, with a shipped model in the place of a large one."""
    kept = tmp_path / "figures.jsonl"
    monkeypatch.setattr("sys.argv", [
        "measure.py", "prompts", "--backend", "cpu_numpy", "--figures", str(kept), "--line",
        "--model stories-llama3 --prompt 5 --tokens 3 --repeat 1"])
    assert measure.main() == 0
    assert capsys.readouterr().out.count("calls right") == 2
    decode, prefill = records.read(kept)
    assert (decode.figure, prefill.figure, prefill.prompt, len(prefill.ledger)) == (
        "decode", "prefill", 5, 12)
    assert decode.command == ("python -m models.bench --backend cpu_numpy --model stories-llama3 "
                              "--prompt 5 --tokens 3 --repeat 1")


def test_a_line_that_fails_is_told_without_paths(monkeypatch):
    monkeypatch.setattr(measure, "ended", lambda *_: (2, "", "error: no such thing"))
    found, fault = measure.measure("--prompt 0", "cpu_numpy", "llama.cpp=/home/me/python", 9)
    assert not found and fault == ("python -m models.bench --backend cpu_numpy --prompt 0 --peers "
                                   "llama.cpp: exit code 2: error: no such thing")


def test_plots(tmp_path):
    """They have the same bytes each time, and every one is on the page."""
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    from performance.plots import draw
    draw(page.every(), tmp_path / "one")
    draw(page.every(), tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in page.PLOTS.iterdir())
    for name in names:
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes() and b"<dc:date>" not in first
        assert f"(plots/{name})" in page.PAGE.read_text()
