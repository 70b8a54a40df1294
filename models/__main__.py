"""The console script `kernelyard`: runs the modules' own command lines as subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from models.cli.command import command

#: a module of `models` -> what its `main` does. It is imported when it is called: the server alone
#: takes as long as all that `run` needs
COMMANDS = {"run": "generate text with a model",
            "serve": "serve a model to clients of OpenAI's API",
            "plan": "say what a model will need in memory, before loading it",
            "models": "list the models that --model takes by name",
            "doctor": "say what is installed, what works, and how to fix the rest",
            "export": "write a model in another format",
            "batch": "answer a file of requests in OpenAI's batch format",
            "bench": "measure speed at published shapes, outputs checked",
            "conform": "compare the kernels of a backend with the definitions",
            "verify": "compare backends with each other or with saved results"}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """`kernelyard COMMAND ...` is `python -m models.COMMAND ...`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        code: int = import_module(f"models.{arguments[0]}").main(arguments[1:])
        return code
    lines = ["usage: kernelyard COMMAND [options]", ""]
    lines += [f"  {name:8} {what}" for name, what in COMMANDS.items()]
    asked = arguments[:1] in (["-h"], ["--help"])
    if not asked and arguments:
        lines.insert(0, f"error: unknown command {arguments[0]!r}")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2
