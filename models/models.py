"""python -m models.models: list the models that `--model` takes by name."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich.table import Table

from core.installed.registry import default_registry
from models.architectures.base import families
from models.checkpoints.base import SHIPPED, shipped_models
from models.checkpoints.huggingface.cached import Listed, cached_models, described
from models.cli import report
from models.cli.command import command
from models.cli.console import open_console
from models.engine.memory import megabytes


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.models", description=(
        "List the models that --model takes by name: those that ship with the package, and those "
        "in the cache of the Hugging Face hub that can be read."))
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, or an object with the lists `shipped` and `hub`."""
    args = parser().parse_args(argv)
    registry = default_registry()
    report.left_out(registry)
    known = families(registry)
    shipped = [Listed(name, *found, SHIPPED / name) for name in shipped_models()
               if (found := described(SHIPPED / name, known)) is not None]
    hub = list(cached_models(known))
    if args.json:
        print(json.dumps({"shipped": [m.to_json() for m in shipped],
                          "hub": [m.to_json() for m in hub]}, indent=1))
        return 0
    table = Table("name", "family", "size", "where")
    for model in [*shipped, *hub]:
        table.add_row(model.name, model.family, megabytes(model.nbytes),
                      "shipped" if model in shipped else str(model.path))
    open_console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
