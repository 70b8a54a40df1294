"""Prints the tables of models.bench."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from models.cli.console import make_table, open_console


def profile_table(part: dict[str, Any]) -> Table:
    """Tabulate what `profiled` found, slowest first."""
    alone = sum(k["seconds"] for k in part["kernels"])
    numbers = ("calls", "µs each", "of all", "GB/s", "of measured", "GFLOP/s")
    table = make_table("node", "kernel", *numbers, numbers=numbers,
                       title=f"{part['what']}: {alone * 1e3:.3f} ms kernel by kernel, "
                             f"{part['step_s'] * 1e3:.3f} ms in sequence")
    for k in part["kernels"]:
        share, second = k["bandwidth_share"], k["seconds"]
        table.add_row(k["node"], k["kernel"], str(k["calls"]), f"{second / k['calls'] * 1e6:.1f}",
                      f"{second / alone:.1%}", f"{k['bytes_per_s'] / 1e9:.1f}",
                      "unknown" if share is None else f"{share:.0%}",
                      f"{k['flops'] / second / 1e9:.1f}")
    return table


def tuning(name: str, rows: list[dict[str, Any]]) -> None:
    """Print, for models.bench --op, a table for each call: its kernels, fastest first."""
    console = open_console()
    numbers = ("µs", "GB/s", "GFLOP/s", "budget used")
    for call in dict.fromkeys((r["op"], r["dtypes"], r["call"], r["nodes"]) for r in rows):
        op, dtypes, what, nodes = call
        table = make_table("kernel", *numbers, "verdict", numbers=numbers,
                           title=f"{name}: {op} {dtypes}, {what}, {nodes} nodes of a step")
        found = [r for r in rows if (r["op"], r["dtypes"], r["call"], r["nodes"]) == call]
        for r in sorted(found, key=lambda r: r["seconds"] or float("inf")):
            if r["seconds"] is None:
                table.add_row(r["kernel"], *[""] * 4, f"refuses: {r['refused']}", style="dim")
                continue
            table.add_row(r["kernel"], f"{r['seconds'] * 1e6:.1f}",
                          f"{r['bytes_per_s'] / 1e9:.2f}", f"{r['flops_per_s'] / 1e9:.2f}",
                          "" if r["budget_used"] is None else f"{r['budget_used']:.2f}",
                          "right" if r["ok"] else f"WRONG: {r['verdict']}",
                          style=None if r["ok"] else "red")
        console.print(table)


def batches(rows: list[dict[str, Any]]) -> None:
    """Print, for models.bench --batch or --workload, one line a count of sequences, and under it
    what was checked."""
    numbers = ("sequences", "prompt tokens", "new tokens", "tokens/s", "ms a step", "host ms",
               "of roofline")
    table = make_table("shape", "weights", *numbers, "ledger", "checked", numbers=numbers)
    for r in rows:
        share = r.get("roofline_share")
        rate = r.get("decode_tokens_per_s") or r["tokens_per_s"]
        step = [f"{r[key] * 1e3:.3f}" if key in r else "" for key in ("step_s", "host_step_s")]
        table.add_row(
            r["shape"], r["quantize"] or r["stored"], f"{r['sequences']}",
            f"{r.get('prompt', r.get('prompt_tokens')):,}", f"{r['tokens']:,}", f"{rate:,.0f}",
            *step, "" if share is None else f"{share:.0%}", r["ledger"], "yes" if r["ok"] else "NO",
            style=None if r["ok"] else "red")
    _show(table, rows)


def peers(rows: list[dict[str, Any]]) -> None:
    """Print, for models.bench --peers, one line a peer and workload."""
    console = open_console()
    for r in rows:
        what = f"{r['shape']}, {r['sequences']} sequences, {r['tokens']:,} new tokens"
        said = (f"skipped: {r['skipped']}" if "skipped" in r else
                f"{r['version']}: {r['tokens_per_s']:,.0f} tokens/s, prompts included; ours "
                f"{r['our_tokens_per_s']:,.0f}; {_decode(r)}" + (
                    "tokens are sampled, so not compared" if r["equal_tokens"] is None else
                    f"{r['equal_tokens']:,} tokens are equal before the first that differs"))
        console.print(f"{what} by {r['peer']}: {said}", highlight=False, markup=False)


def _decode(row: dict[str, Any]) -> str:
    """Return both rates after the first tokens, where they are known."""
    if not {"decode_tokens_per_s", "our_decode_tokens_per_s"} <= set(row):
        return ""
    theirs, ours = row["decode_tokens_per_s"], row["our_decode_tokens_per_s"]
    return f"decode {theirs:,.0f}, ours {ours:,.0f}, ratio {ours / theirs:.2f}; "


def benchmark(rows: list[dict[str, Any]]) -> None:
    """Print, for models.bench, one line a shape, and under it what was checked."""
    numbers = ("prefill tokens/s", "first token ms", "decode tokens/s", "spread",
               "host ms a step", "GB/s", "of measured")
    table = make_table("shape", "weights", *numbers, "ledger", "checked", numbers=numbers)
    for r in rows:
        share = r["bandwidth_share"]
        table.add_row(
            r["shape"], r["quantize"] or r["stored"], f"{r['prefill_tokens_per_s']:.0f}",
            f"{r['time_to_first_token_s'] * 1e3:.1f}", f"{r['decode_tokens_per_s']:.1f}",
            f"{r['decode_spread']:.1%}", f"{r['host_step_s'] * 1e3:.3f}",
            f"{r['read_bytes_per_s'] / 1e9:.1f}",
            "unknown" if share is None else f"{share:.0%}", r["ledger"], "yes" if r["ok"] else "NO",
            style=None if r["ok"] else "red")
    _show(table, rows)


def _show(table: Table, rows: list[dict[str, Any]]) -> None:
    """Print a table of rows, then what was checked of each, and its profile if it has one."""
    console = open_console()
    console.print(table)
    for r in rows:
        console.print(f"{r['shape']} on {r['backend']} ({r['device']}): {r['verdict']}",
                      highlight=False, markup=False)
        for part in r.get("profile", ()):
            console.print(profile_table(part))
