"""Shows losses for models.export --report: a table, a JSON file, a plot by layer."""

from __future__ import annotations

import importlib
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from core.errors import OptionError, missing_packages
from core.files import write_whole
from models.cli.console import make_table, open_console
from models.engine.memory import megabytes


def show(losses: dict[str, Any]) -> None:
    """Show tensors in the order of their share of the loss, or of their error."""
    left_out = any("kl_share" in row for row in losses["tensors"])
    table = make_table("tensor", "shape", "group", "relative error", "worst group", "at row, group",
                       *(("KL without it", "its share") if left_out else ()),
                       numbers=("relative error", "worst group", "KL without it", "its share"))
    key = "kl_share" if left_out else "relative_error"
    for row in sorted(losses["tensors"], key=lambda r: -r[key]):
        loss = (f"{row['kl_without']:.2e}", f"{row['kl_share']:.1%}") if left_out else ()
        table.add_row(row["tensor"], "×".join(map(str, row["shape"])),
                      str(row["group_size"] or "row"), f"{row['relative_error']:.2e}",
                      f"{row['worst_group_error']:.2e}", ", ".join(map(str, row["worst_group"])),
                      *loss)
    console = open_console()
    console.print(table)
    for line in summary(losses):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def summary(losses: dict[str, Any]) -> list[str]:
    before, after = losses["bytes_before"], losses["bytes_after"]
    return [f"size {megabytes(before)} before, {megabytes(after)} after ({after / before:.1%}); "
            f"{losses['unchanged']} tensors unchanged",
            f"KL divergence of the logits over {losses['tokens']} tokens (text {losses['text']}): "
            f"mean {losses['kl_mean']:.2e}, max {losses['kl_max']:.2e} nats; greedy tokens agree "
            f"on {losses['greedy_agreement']:.1%}"]


def write_json(losses: dict[str, Any], path: Path) -> None:
    write_whole(path, json.dumps(losses, indent=1) + "\n")


def check_plot(path: Path) -> None:
    """Raises OptionError for a suffix that cannot be plotted, or with the line that installs
    matplotlib."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise OptionError(f"--report-plot {path}: expected a name that ends in .png, .svg or .pdf")
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        raise missing_packages("--report-plot", {"matplotlib": "pip install 'kernelyard[plot]'"},
                               OptionError) from None


def plot(losses: dict[str, Any], path: Path) -> None:
    """Plot relative error by layer, a line for each kind of matrix; below, their shares of the
    loss."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(8, 7))
    lines: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for row in losses["tensors"]:
        layer = re.search(r"layers\.(\d+)\.(?:.*\.)?(\w+)\.\w+$", row["tensor"])
        if layer:
            lines[layer[2]].append((int(layer[1]), row["relative_error"],
                                    row.get("kl_share", float("nan"))))
    top, bottom = figure.subplots(2, 1, sharex=True)
    for kind, points in lines.items():
        layers, errors, shares = zip(*sorted(points), strict=True)
        top.plot(layers, errors, marker="o", label=kind)
        bottom.plot(layers, shares, marker="o", label=kind)
    top.set(ylabel="relative error", title=f"{losses['model']}: error by layer")
    bottom.xaxis.get_major_locator().set_params(integer=True)
    bottom.set(xlabel="layer", ylabel="share of the KL divergence")
    top.legend(fontsize="small", ncol=4)
    figure.savefig(path)
