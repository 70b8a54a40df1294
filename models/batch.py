"""python -m models.batch: answer a file of requests in OpenAI's batch format."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import IO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from core.errors import OptionError
from core.reading import open_regular
from models.checkpoints.base import read_checkpoint
from models.cli import report
from models.cli.arguments import add_load_options, add_model_option, load_options
from models.cli.command import command
from models.cli.console import open_console, tell
from models.cli.results import Results
from models.engine.load import settle_checkpoint
from models.engine.model_sampling import MODEL, OPTIONS, request_defaults
from models.engine.options import EngineOptions
from models.engine.pool import open_engine
from models.serving.conversation import ConversationEncoder
from models.serving.openai.batch import BatchRunner
from models.serving.openai.batch_lines import MOST_BYTES
from models.tokenizers.base import choose_template


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.batch", description=(
        "Answer a file of requests in OpenAI's batch format: a JSON object a line, with custom_id, "
        "method, url (/v1/completions or /v1/chat/completions) and body."))
    p.add_argument("file", type=Path, metavar="FILE.jsonl")
    p.add_argument("-o", "--output", type=Path, metavar="OUT.jsonl",
                   help="where results are appended, each as soon as it is there; the same command "
                        "again goes on with those that are missing (default: standard output)")
    add_model_option(p)
    p.add_argument("--served-model-name", metavar="NAME",
                   help="the `model` that bodies name (default: the model's own name)")
    p.add_argument("--chat-template", metavar="NAME|FILE",
                   help="the chat template: one of the model's by name, or a file")
    p.add_argument("--no-escape-special", dest="escape_special", action="store_false",
                   help="messages may write control tokens (default: they are ordinary text)")
    p.add_argument("--sampling", choices=(OPTIONS, MODEL), default=MODEL,
                   help="where a request says nothing, sample as the model's files say (model, the "
                        "default), or as OpenAI's API does (options)")
    add_load_options(p, without=["chunk"])  # --max-num-batched-tokens bounds a step
    add_load_options(p, EngineOptions)
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 every line has an answer, 1 the logits of some were not finite, 2 some lines,
    or the options, cannot be used, 3 a kernel failed, 130 interrupted."""
    args = parser().parse_args(argv)
    options = load_options(args)
    engine_options = EngineOptions(**{f.name: getattr(args, f.name) for f in fields(EngineOptions)})
    total = _count(args.file, args.output)
    registry = options.registry()
    report.left_out(registry)
    checkpoint = read_checkpoint(args.model, registry)
    template = choose_template(checkpoint.tokenizer, args.chat_template)
    encoder = None if template is None else ConversationEncoder(
        checkpoint.tokenizer, template, escape=args.escape_special)
    defaults = request_defaults(args.sampling, checkpoint.generation)
    with Results(args.output) as results:
        if results.found:
            tell(f"{args.output} has {results.found:,} results; going on with the others")
        with report.Loading() as loading:
            config = settle_checkpoint(checkpoint, options, registry)
            engine = open_engine(config, config.weights(loading.progress), engine_options)
        with engine, open_regular(args.file) as file, _bar() as bar:
            for note in checkpoint.notes:
                tell(f"note: {note}")
            if defaults:
                named = ", ".join(f"{name} {value}" for name, value in defaults.items())
                tell(f"sampling where a request says nothing: {named} "
                     f"({checkpoint.generation.where})")
            task = bar.add_task("requests", total=total, rate="")
            runner = BatchRunner(engine, args.served_model_name or checkpoint.name, encoder,
                                 defaults)
            with closing(runner.run(_lines(file), results.done)) as found:
                for result in found:
                    if result is not None:
                        results.add(result)
                    elapsed = bar.tasks[0].elapsed or 1.0
                    bar.update(task, advance=1,
                               rate=f"{engine.stats.new_tokens / elapsed:,.0f} tokens/s")
        tell(f"{total:,} lines, {results.errors:,} of them errors; {engine.stats.new_tokens:,} "
             f"tokens; ledger {engine.ledger.hash}")
        return 1 if results.failed else 2 if results.errors else 0


def _bar() -> Progress:
    console = open_console(stderr=True)
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                    TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
                    console=console, transient=True, disable=not console.is_terminal)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers; of one that is too long, its
    beginning."""
    number = 0
    while data := file.readline(MOST_BYTES + 1):
        number += 1
        part = data
        while part and not part.endswith(b"\n") and len(part) > MOST_BYTES:
            part = file.readline(MOST_BYTES + 1)
        if data.strip():
            yield number, data


def _count(path: Path, output: Path | None) -> int:
    """Count the lines that hold something. Raises OptionError for a file that cannot be read."""
    try:
        if output is not None and output.exists() and path.samefile(output):
            raise OptionError(f"--output is {output}, the file of the requests; name another")
        with open_regular(path) as file:
            return sum(1 for _ in _lines(file))
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise OptionError(f"{path} cannot be read: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
