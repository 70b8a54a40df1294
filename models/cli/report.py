"""Show on the command line what stands beside the text: backends, ledger, checks, speed,
progress."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from core.errors import KernelyardError, worded
from core.installed.registry import Registry
from core.output import escaped
from core.verify.verdict import Tally
from models.cli.console import make_table, open_console, tell
from models.cli.dot import to_dot
from models.engine.generate import Generation
from models.engine.memory import megabytes
from models.engine.model import Model
from models.engine.model_sampling import in_force, sampling_line

_MIN_BYTES = 64 << 20  # loads below this are over before a bar can be read


class Loading:
    """Show a progress bar on standard error, once a slow part of loading begins."""

    def __init__(self) -> None:
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
                             TransferSpeedColumn(), console=open_console(stderr=True),
                             transient=True)
        self._tasks: dict[str, Any] = {}

    def progress(self, what: str, done: int, total: int) -> None:
        """Show progress, as the callback that models.load takes."""
        if total < _MIN_BYTES:
            return
        if what not in self._tasks:
            self._bar.start()
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done)

    def stop(self) -> None:
        if self._tasks:
            self._bar.stop()

    def __enter__(self) -> Loading:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()


def backends(registry: Registry) -> None:
    """Print every backend with its state, then the plugins that could not be loaded."""
    console = open_console()
    table = make_table("backend", "device", "state", "from", "guests")
    for name in sorted(registry.specs):
        reason = registry.unavailable(name)
        state = Text(f"available: {escaped(described(registry, name))}" if reason is None
                     else "unavailable", style="green" if reason is None else "red")
        table.add_row(name, registry.specs[name].device, state,
                      registry.owners[name], "\n".join(guests(registry, name)))
    console.print(table)
    for name in sorted(registry.specs):  # in full, so that the fix can be copied
        if (reason := registry.unavailable(name)) is not None:
            console.print(reason, style="red", markup=False, soft_wrap=True)
    left_out(registry, console)


def described(registry: Registry, name: str) -> str:
    """Return an opened backend's own line."""
    try:
        return registry.backend(name).describe()
    except Exception as error:  # a backend's own text must not take the list down
        return f"describe() failed with {worded(error)}"


def guests(registry: Registry, name: str) -> list[str]:
    """Name the kernels that other distributions brought for a backend that works."""
    if registry.unavailable(name) is not None:
        return []
    try:
        registry.kernels(name)
    except KernelyardError as error:  # such as a backend without kernels
        return [f"no kernels: {error}"]
    return [f"{k.op}: {k.name} ({registry.sources[k]})" for k in registry.kernels(name)
            if registry.guest(k)]


def left_out(registry: Registry, console: Console | None = None) -> None:
    """Print who else's plugins are loaded, and a line for each plugin, or single thing of one, that
    was left out."""
    console = console or open_console(stderr=True)
    registry.load_tables()
    plugins = registry.plugins
    if plugins.foreign:
        named = ", ".join(f"{name} ({source})" for name, source in plugins.foreign.items())
        console.print(f"plugins: {named}", style="dim", markup=False, highlight=False,
                      soft_wrap=True)
    for lying in plugins.lying:
        console.print(f"plugin {lying.name} (from {lying.distribution}) {lying.reason}",
                      style="red", markup=False, highlight=False, soft_wrap=True)
    for broken in plugins.broken:
        console.print(f"broken plugin {broken}", style="red", markup=False, soft_wrap=True)
    for dropped in plugins.dropped:
        console.print(f"left out: {dropped}", style="red", markup=False, soft_wrap=True)


def explained(model: Model, form: str) -> str:
    """Return the ledger as JSON, or the decode step's graph, as another program reads it."""
    if form == "json":
        return json.dumps(model.ledger.to_json(), indent=1)
    graph = model.session.decoder.graph
    return to_dot(graph) if form == "dot" else str(graph)


def explain(model: Model, generation: Generation | None = None) -> None:
    """Print to standard error the ledger as a table, how `generation` samples, and stop ids."""
    decode = model.session.decoder
    table = make_table("op", "phase", "tokens", "kernel", "nodes", "first node", "refused",
                       numbers=("tokens", "nodes"), title=f"ledger {model.ledger.hash}")
    for row in model.ledger.summary():
        refused = "\n".join([*row["refused"], *([row["note"]] if row["note"] else [])])
        table.add_row(row["op"], row["phase"], str(row["tokens"]), _kernel(row), str(row["nodes"]),
                      row["first"], refused)
    console = open_console(stderr=True)
    console.print(table)
    peak, total = decode.activation_bytes
    console.print(f"decode activations: {peak:,} bytes by reuse, {total:,} as separate buffers; "
                  f"{kv_cache(model)}", highlight=False)
    if generation is not None:
        tell(sampling_line(in_force(generation.sampling), generation.sampling_from))
    tell("stop ids: " + (", ".join(f"{s['id']} {s['token']!r} ({s['from']})"
                                   for s in stop_ids(model)) or "none"))


def stop_ids(model: Model) -> list[dict[str, Any]]:
    """Return each stop id with its token and where it comes from."""
    return [{"id": i, "token": model.tokenizer.token(i),
             "from": model.stops_from.get(i, "the reader of the format")}
            for i in sorted(model.stop_ids)]


def _kernel(row: dict[str, Any]) -> str:
    """Name a kernel, and its distribution if it is a guest in its backend."""
    return f"{row['kernel']} (guest: {row['source']})" if row["guest"] else str(row["kernel"])


def kv_cache(model: Model) -> str:
    """Describe the KV cache's memory in words."""
    session = model.session
    return (f"KV cache: {session.kv_bytes:,} bytes, {session.kv_dtype} for "
            f"{session.max_context:,} tokens")


def started(model: Model) -> None:
    """Print one line before the text: what was loaded, and the memory that it took."""
    open_console(stderr=True).print(
        f"{model.name} on {', '.join(model.session.policy.backends)}: weights "
        f"{megabytes(model.session.weights.nbytes)} in {model.session.weights.described()}, "
        f"{kv_cache(model)}", style="dim", markup=False, highlight=False, soft_wrap=True)
    for kernel, source in sorted({(e.kernel, e.source) for e in model.ledger.entries if e.guest}):
        open_console(stderr=True).print(f"guest kernel: {kernel}, from {source}", markup=False,
                                        highlight=False, soft_wrap=True)


def checked(tally: Tally) -> None:
    """Print the result of --check: one row for each op, kernel and other side."""
    table = make_table("op", "kernel", "against", "calls", "wrong", "worst NMSE", "worst element",
                       "budget used", "worst node", title="cross-check", numbers=(
                           "calls", "wrong", "worst NMSE", "worst element", "budget used"))
    for r in tally.rows:
        numbers = ("-", "-", "-") if r.worst is None else (
            f"{r.worst.nmse:.1e}", f"{r.worst.max_rel:.1e}", f"{r.worst.used:.2f}")
        who = f"{r.against} (the same kernel)" if r.itself else r.against
        table.add_row(r.op, r.kernel, who, str(r.calls), str(r.wrong), *numbers,
                      r.skipped or r.worst_node, style="red" if r.wrong else None)
    console = open_console(stderr=True)
    console.print(table)
    for r in tally.rows:
        if r.calls and (r.wrong or "length" in {**r.coverage.right, **r.coverage.wrong}):
            console.print(f"seen, {r.op} by {r.against}: {r.coverage.seen()}", markup=False,
                          highlight=False, soft_wrap=True)
        if r.wrong:
            lines = [r.reason, f"  {', '.join(f'{k} ({op})' for op, k in r.faults)} is wrong; "
                     f"{r.coverage.which}; vote: {r.vote}"]
            for line in lines:
                console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    for text in tally.notes:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def verdict(check: Tally | None) -> str:
    """Say what is known of the correctness of the run that was timed."""
    return "not checked (--check reference)" if check is None else str(check)


def speed(model: Model, generation: Generation, check: Tally | None) -> None:
    """Print times, the ledger's hash, and the verdict without which a speed means nothing."""
    s = generation.stats.to_json()
    open_console(stderr=True).print(
        f"{generation.finish_reason}: prefill {s['prompt_tokens']} tokens in "
        f"{s['prefill_s'] * 1e3:.0f} ms, decode {s['new_tokens']} tokens at "
        f"{s['decode_tokens_per_s']:.0f} tokens/s; ledger {model.ledger.hash}; {verdict(check)}",
        style="dim", markup=False, highlight=False, soft_wrap=True)



def as_json(model: Model, generation: Generation, check: Tally | None, *,
            ledger: bool = False) -> dict[str, Any]:
    """Return the object that --json prints; with --explain it holds the whole ledger too."""
    found: dict[str, Any] = {
        "prompt_tokens": generation.prompt_ids, "tokens": generation.tokens,
        "text": generation.text, "finish_reason": generation.finish_reason,
        "nonfinite": generation.nonfinite,
        "stats": {**generation.stats.to_json(), "ledger": model.ledger.hash,
                  "backends": list(model.session.policy.backends),
                  "correctness": verdict(check), "kv_cache_bytes": model.session.kv_bytes,
                  "kv_dtype": model.session.kv_dtype.short,
                  "max_context": model.session.max_context},
        "sampling": {**in_force(generation.sampling), "from": dict(generation.sampling_from)},
        "stop_ids": stop_ids(model)}
    if check is not None:
        found["check"] = {"ok": check.ok, "rows": [r.to_json() for r in check.rows]}
    return {**found, "ledger": model.ledger.to_json()} if ledger else found
