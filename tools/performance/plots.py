"""Draws the plots of docs/performance.md as SVG, with equal bytes for equal records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from performance.records import ARITHMETIC, Record
from performance.tables import NAMES

#: white behind it all: readable on a dark page too
STYLE = {"svg.hashsalt": "kernelyard", "svg.fonttype": "none", "font.family": "sans-serif",
         "font.size": 9, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6,
         "figure.facecolor": "white", "axes.facecolor": "white", "legend.frameon": False,
         "legend.fontsize": 7.5, "axes.spines.top": False, "axes.spines.right": False}
COLOURS = ["#0b6bcb", "#c2410c", "#15803d", "#7c3aed", "#b91c1c", "#0e7490", "#a16207", "#be185d",
           "#4d7c0f", "#475569"]
MARKS = "osD^vPX*<>"
PEER = {"linestyle": "--", "alpha": 0.7, "linewidth": 1.2}
Key = Callable[[Record], float]


def draw(records: Sequence[Record], folder: Path) -> None:
    """Write every plot that has data."""
    folder.mkdir(parents=True, exist_ok=True)
    one = [r for r in records if r.sequences == 1]
    gpu = [r for r in one if r.threads is None]
    plots: dict[str, Callable[[], Figure | None]] = {
        "roofline": lambda: roofline(records),
        "batch": lambda: lines({"decode": [r for r in records if r.figure == "decode" and (
            r.sequences > 1 or r.tokens == 128 == r.prompt)]},
            "sequences", lambda r: r.sequences, log=True),
        "contexts": lambda: lines({"decode": [r for r in gpu if r.figure == "decode"]},
                                  "tokens of context", lambda r: r.prompt),
        "prompts": lambda: lines({"prefill": [r for r in gpu if r.figure == "prefill"]},
                                 "tokens of the prompt", lambda r: r.prompt, log=True),
        "threads": lambda: lines({what: [r for r in _counted(one) if r.figure == what]
                                  for what in ("decode", "prefill")},
                                 "threads", lambda r: r.threads or 0, least=1),
        "steps": lambda: steps([r for r in records if r.kernels])}
    with mpl.rc_context(STYLE):
        for name, plot in plots.items():
            figure = plot()
            if figure is not None:
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None},
                               bbox_inches="tight")


def _label(record: Record) -> str:
    layers = f", {record.layers} layers" if record.layers else ""
    return (f"{NAMES.get(record.model, record.model)} {record.weights}{layers}, {record.backend}, "
            f"{_card(record)}")


def _card(record: Record) -> str:
    return record.card.removeprefix("NVIDIA ").partition(" 80GB")[0].partition(" with ")[0]


def _counted(records: Iterable[Record]) -> list[Record]:
    """Return records of the processor and model that have the most counts of threads."""
    found = dict[tuple[str, str, int | None], list[Record]]()
    for record in records:
        if record.threads and not record.kernels:
            found.setdefault((record.card, record.model, record.layers), []).append(record)
    return max(found.values(), default=[], key=lambda group: (
        len({r.threads for r in group}), len(group), group[0].model == "llama3.2-1b"))


def lines(panels: dict[str, list[Record]], what: str, key: Key, *, log: bool = False,
          least: int = 2) -> Figure | None:
    """Draw tokens/s over `key`: a line for each model, backend and card that has so many points,
    and a dashed one for its peer."""
    curves = {name: _curves(found, key, least) for name, found in panels.items()}
    if not any(curves.values()):
        return None
    figure = Figure(figsize=(5.4 * len(panels), 3.6))
    names = sorted({label for found in curves.values() for label in found})
    for axes, (name, found) in zip(_axes(figure, len(panels)), curves.items(), strict=True):
        for label, records in found.items():
            at = names.index(label)
            style = {"color": COLOURS[at % len(COLOURS)], "marker": MARKS[at % len(MARKS)],
                     "markersize": 4}
            x = [key(r) for r in records]
            axes.plot(x, [r.tokens_per_s for r in records], label=label, **style)
            if beside := [(key(r), r.peer) for r in records if r.peer]:
                axes.plot([at for at, _ in beside], [peer[1] for _, peer in beside],
                          label=f"  {beside[0][1][0].partition(' (')[0]}", **{**style, **PEER})
        axes.set(xlabel=what, ylabel="tokens/s", title=name)
        ticks = sorted({key(r) for found in curves.values() for rs in found.values() for r in rs})
        if log:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        if log or what == "threads":
            axes.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
        if not log:
            axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.15))
    return figure


def _curves(records: Iterable[Record], key: Key, least: int) -> dict[str, list[Record]]:
    """Return records of one label and date that differ in `key`, sorted by it."""
    found = dict[tuple[str, str], dict[float, Record]]()
    for record in records:
        found.setdefault((_label(record), record.date), {})[key(record)] = record
    return {label: [points[x] for x in sorted(points)] for (label, _), points in found.items()
            if len(points) >= least}


def _axes(figure: Figure, count: int) -> list[Axes]:
    return [figure.add_subplot(1, count, i + 1) for i in range(count)]


def roofline(records: Iterable[Record]) -> Figure | None:
    """Draw operations a second over operations a byte, a panel a card: each point is a decode step
    or a prompt, and the lines are what the card's memory and its arithmetic allow."""
    cards = dict[str, list[Record]]()
    for record in records:
        if record.nbytes and record.flops and record.seconds and not (
                record.figure == "prefill" and record.prompt < 128):
            cards.setdefault(_card(record), []).append(record)
    if not cards:
        return None
    names = sorted({_point(r) for found in cards.values() for r in found})
    figure = Figure(figsize=(5.4 * len(cards), 4))
    for axes, (card, found) in zip(_axes(figure, len(cards)), sorted(cards.items()), strict=True):
        speeds = [r.nbytes / r.seconds / r.share for r in found
                  if r.figure == "decode" and r.share and r.nbytes and r.seconds]
        most = next((f for name, f in ARITHMETIC.items() if card in name), None)
        for record in sorted(found, key=_point):
            at = names.index(_point(record))
            assert record.nbytes and record.flops and record.seconds  # chosen above
            axes.plot(record.flops / record.nbytes, record.flops / record.seconds / 1e12,
                      MARKS[at % len(MARKS)], color=COLOURS[at % len(COLOURS)], markersize=5,
                      fillstyle="full" if record.figure == "decode" else "none",
                      label=names[at] if names[at] not in axes.get_legend_handles_labels()[1]
                      else None)
        low, high = axes.get_xlim()
        low, high = min(low, 0.4), max(high, 1000 if most else 4)
        if speeds:
            top = max(speeds)
            x = [low, min(high, most / top) if most else high]
            axes.plot(x, [v * top / 1e12 for v in x], color="#111111", linewidth=1,
                      label=f"memory, {top / 1e12:.3g} TB/s")
            if most:
                axes.plot([x[1], high], [most / 1e12] * 2, color="#111111", linewidth=1,
                          linestyle=":", label=f"products in bf16, {most / 1e12:.0f} TFLOP/s")
        axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="TFLOP/s",
                 title=card)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)
    return figure


def _point(record: Record) -> str:
    what = {"decode": "decode", "prefill": "prompts"}.get(record.figure, record.figure)
    return f"{what}, {NAMES.get(record.model, record.model)} {record.weights}"


def steps(records: Sequence[Record]) -> Figure | None:
    """Draw each profiled step as a bar: a kind of kernel is as wide as its time, and the dark part
    of it is the time in which the memory gives its bytes."""
    if not records:
        return None
    figure = Figure(figsize=(9, 0.9 + 1.1 * len(records)))
    axes = figure.add_subplot()
    for row, record in enumerate(records):
        start = 0.0
        best = (record.nbytes or 0) / (record.seconds or 1) / (record.share or 1)
        for at, (node, _, calls, seconds, nbytes) in enumerate(record.kernels):
            colour, width = COLOURS[at % len(COLOURS)], seconds * 1e3
            axes.barh(row, width, 0.5, left=start, color=colour, alpha=0.35, linewidth=0)
            least = min(width, nbytes / best * 1e3) if record.share else 0.0
            axes.barh(row, least, 0.5, left=start, color=colour, linewidth=0)
            if seconds > 0.07 * sum(k[3] for k in record.kernels):
                name = node.replace("layers.*.", "")
                axes.text(start + width / 2, row + 0.32, f"{name}\n{calls} × "
                          f"{width / calls * 1e3:.3g} µs",
                          ha="center", va="bottom", fontsize=6)
            start += width
    axes.set(xlabel="ms", ylim=(-0.5, len(records) - 0.1))
    axes.set_yticks(range(len(records)), [_label(r).replace(", ", "\n", 1) for r in records])
    axes.grid(axis="y", visible=False)
    return figure
