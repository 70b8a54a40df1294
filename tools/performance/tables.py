"""Writes records as lines of text, and as the tables of docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from performance.goals import judged
from performance.records import Record

HEAD = ("| model, weights | backend | {what} | tokens/s | of the limit | peer | ratio | goal | "
        "verdict | ledger |\n|---|---|---|---|---|---|---|---|---|---|\n")
NAMES = {"tinyllama-1.1b": "TinyLlama-1.1B", "llama3.2-1b": "Llama-3.2-1B",
         "qwen2.5-0.5b": "Qwen2.5-0.5B", "llama2-7b": "Llama-2-7B"}


def number(value: float) -> str:
    """Return a rate with three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(record: Record) -> str:
    """Return what was checked, in few words; the record has all of them."""
    calls = sum(map(int, re.findall(r"(\d+) kernel calls", record.verdict)))
    if not record.ok:
        return f"NO: {record.verdict}"
    return f"{calls} calls right" if calls else record.verdict


def cells(record: Record) -> dict[str, str]:
    """Return a record's columns."""
    layers = f", {record.layers} layer{'s' * (record.layers > 1)}" if record.layers else ""
    share = "" if record.share is None else f"{record.share:.0%}"
    name, rate = record.peer or ("", 0.0)
    return {"model": f"{NAMES.get(record.model, record.model)} {record.weights}{layers}",
            "backend": record.backend, "tokens/s": number(record.tokens_per_s),
            "share": f"{share} of {record.limit}" if share and record.limit else share,
            "peer": f"{name}: {number(rate)}" if name else "",
            "ratio": f"{record.tokens_per_s / rate:.2f}" if rate else "",
            "goal": judged(record), "verdict": verdict(record), "ledger": record.ledger or ""}


def line(record: Record) -> str:
    """Return a record as one line of a terminal, every column named."""
    c = cells(record)
    threads = f", {record.threads} threads" if record.threads else ""
    said = [f"{record.figure} {c['model']} {c['backend']}{threads}, {record.sequences} × "
            f"{record.prompt}: {c['tokens/s']}/s", f"{c['share'] or 'share unknown'}",
            f"{c['peer']}/s, ratio {c['ratio']}" if c["peer"] else "no peer",
            f"goal {c['goal']}" if c["goal"] else "no goal", c["verdict"],
            c["ledger"] or "no ledger", record.card, record.note]
    return "; ".join(filter(None, said))


def table(records: Iterable[Record], what: str, value: Callable[[Record], str]) -> str:
    """Return tables, one for each card, date and command's beginning. `what` heads the column that
    tells rows apart, and `value` gives it."""
    groups = dict[tuple[str, str, str], list[Record]]()
    for record in records:
        groups.setdefault((record.card, record.date, record.commit), []).append(record)
    text = ""
    for (card, date, commit), found in sorted(groups.items(), key=lambda g: (g[0][0], g[0][1])):
        text += f"**{card}**, {date}, commit {commit}:\n\n{HEAD.format(what=what)}"
        notes, commands = [n for r in found if (n := r.note)], [r.command for r in found]
        for record in found:
            c = cells(record)
            row = [c["model"], c["backend"], value(record), c["tokens/s"], c["share"], c["peer"],
                   c["ratio"], c["goal"], c["verdict"], c["ledger"]]
            text += f"| {' | '.join(cell or '–' for cell in row)} |\n"
        text += "\n" + "".join(f"{note[0].upper()}{note[1:]}.\n\n" for note in dict.fromkeys(notes))
        text += _hidden("commands", dict.fromkeys(commands))
    return text


def _hidden(what: str, lines: Iterable[str]) -> str:
    return (f"<details><summary>{what}</summary>\n\n```\n" + "".join(f"{x}\n" for x in lines)
            + "```\n\n</details>\n\n")


def _one(record: Record) -> bool:
    return record.sequences == 1 and not record.kernels


def _context(records: list[Record]) -> list[Record]:
    """Return decode by prompt, of models with several prompts on one card in one run."""
    found = [r for r in records if r.figure == "decode" and _one(r) and r.threads is None]
    keys = [(r.model, r.weights, r.backend, r.card, r.date) for r in found]
    return sorted((r for r, key in zip(found, keys, strict=True) if keys.count(key) > 1),
                  key=lambda r: (r.card, r.backend, r.prompt))


def _step(record: Record) -> str:
    """Return the kernels of a step, slowest first."""
    whole = sum(seconds for *_, seconds, _ in record.kernels)
    step = record.seconds or whole
    text = (f"**{cells(record)['model']}, {record.backend}**, {record.card}, {record.date}, commit "
            f"{record.commit}: {step * 1e6:,.0f} µs in sequence, {whole * 1e6:,.0f} µs kernel by "
            f"kernel, {verdict(record)}, ledger {record.ledger}."
            f"{f' Note: {record.note}.' if record.note else ''}\n\n"
            "| node | kernel | calls | µs each | of all | MB | GB/s |\n"
            "|---|---|---|---|---|---|---|\n")
    for node, kernel, calls, seconds, nbytes in record.kernels:
        text += (f"| {node} | {kernel} | {calls} | {seconds / calls * 1e6:,.1f} | "
                 f"{seconds / whole:.1%} | {nbytes / 1e6:,.2f} | {nbytes / seconds / 1e9:,.1f} |\n")
    return f"{text}\n{_hidden('command', [record.command])}"


def tables(records: list[Record]) -> dict[str, str]:
    """Return the text between the marks of the page, by the table's name."""
    gpu = [r for r in records if r.threads is None and not r.kernels]
    cpu = [r for r in records if r.threads is not None and not r.kernels]
    short = [r for r in gpu if r.figure == "decode" and _one(r) and r.prompt <= 128]
    return {
        "one sequence": table(short, "prompt", lambda r: f"{r.prompt:,}"),
        "contexts": table(_context(records), "after tokens", lambda r: f"{r.prompt:,}"),
        "many sequences": table(
            (r for r in records if r.figure in ("decode", "mixed") and r.sequences > 1),
            "sequences, prompt",
            lambda r: f"{r.sequences:,} × {r.prompt:,}" if r.prompt else "mixed"),
        "prompts": table((r for r in gpu if r.figure == "prefill" and _one(r) and r.prompt >= 128),
                         "prompt", lambda r: f"{r.prompt:,}"),
        "decode on a CPU": table((r for r in cpu if r.figure == "decode" and _one(r)), "threads",
                                 lambda r: f"{r.threads}"),
        "prompts on a CPU": table((r for r in cpu if r.figure == "prefill" and _one(r)),
                                  "threads, prompt", lambda r: f"{r.threads}, {r.prompt:,}"),
        "steps": "".join(_step(r) for r in records if r.kernels)}
