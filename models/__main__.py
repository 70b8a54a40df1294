"""The console script `kernelyard`: runs the modules' own command lines as subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from models import batch, bench, conform, doctor, export, models, plan, run, serve, verify
from models.cli.command import command

COMMANDS = {"run": (run.main, "generate text with a model"),
            "serve": (serve.main, "serve a model to clients of OpenAI's API"),
            "plan": (plan.main, "say what a model will need in memory, before loading it"),
            "models": (models.main, "list the models that --model takes by name"),
            "doctor": (doctor.main, "say what is installed, what works, and how to fix the rest"),
            "export": (export.main, "write a model in another format"),
            "batch": (batch.main, "answer a file of requests in OpenAI's batch format"),
            "bench": (bench.main, "measure speed at published shapes, outputs checked"),
            "conform": (conform.main, "compare the kernels of a backend with the definitions"),
            "verify": (verify.main, "compare backends with each other or with saved results")}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """`kernelyard COMMAND ...` is `python -m models.COMMAND ...`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]][0](arguments[1:])
    lines = ["usage: kernelyard COMMAND [options]", ""]
    lines += [f"  {name:8} {what}" for name, (_, what) in COMMANDS.items()]
    asked = arguments[:1] in (["-h"], ["--help"])
    if not asked and arguments:
        lines.insert(0, f"error: unknown command {arguments[0]!r}")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2
