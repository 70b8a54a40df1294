"""python -m models.conform: compares the kernels of installed backends with the definitions.

With --model the cases are the distinct calls of the model's plans instead of the ops' examples:
decode steps at a short and at the longest context, and parts of a prompt. No weight is read.

It runs `pytest -p core.conformance.plugin --pyargs core.conformance`, with no configuration of the
project in the current folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from core.conformance.calls import ModelCall, write_calls
from core.conformance.options import OPTIONS, flag
from core.errors import OptionError
from core.installed.choice import PluginChoice
from core.installed.registry import Registry, default_registry, split_backends
from models.analysis.calls import available, model_calls
from models.checkpoints.base import read_checkpoint
from models.cli import report
from models.cli.arguments import add_load_options, add_model_option
from models.cli.command import command
from models.engine.options import LoadOptions

SEQUENCES = 8  # of the engine's steps whose calls are tested
MODEL_OPTIONS = ("quantize", "group_size", "kv_dtype", "max_context")  #: that shape a model's calls
#: pytest's exit code for options that it cannot use -> ours
USAGE_ERROR, BAD_INPUT, INTERRUPTED = 4, 2, 130
_STORAGE = "HYPOTHESIS_STORAGE_DIRECTORY"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.conform", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="What follows -- goes to pytest: -- -x -n 4")
    for name, argument in OPTIONS.items():
        p.add_argument(f"--{name}", **argument)
    add_model_option(p, None)
    add_load_options(p, only=MODEL_OPTIONS)
    p.add_argument("-k", metavar="EXPRESSION", help="test only ids that match, as pytest's -k")
    p.add_argument("-q", "--quiet", action="store_true", help="print less")
    p.add_argument("pytest", nargs="*", metavar="PYTEST_OPTION", help=argparse.SUPPRESS)
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all kernels are right, 1 some are not, 2 bad input, 130 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index("--") if "--" in given else len(given)
    args = parser().parse_args(given[:cut])
    if args.pytest:
        raise OptionError(f"{args.pytest[0]!r} is no option; options for pytest follow --")
    if importlib.util.find_spec("pytest") is None:
        raise OptionError("the conformance suite needs pytest: pip install 'kernelyard[test]'")
    registry = default_registry(choice=PluginChoice.of(args.only_plugins, args.without_plugin))
    report.left_out(registry)
    import pytest
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        if args.model is not None:
            args.calls = args.calls or Path(folder, "calls.json")
            write_calls(args.calls, _calls(args, registry))
        elif any(getattr(args, name) for name in MODEL_OPTIONS):
            raise OptionError(f"{', '.join(_flags(MODEL_OPTIONS))} go with --model")
        kept = os.environ.setdefault(_STORAGE, folder)  # else `.hypothesis` stays in this one
        try:
            code = pytest.main([*_arguments(args), *given[cut + 1:]], plugins=[watch])
        finally:
            if kept == folder:
                del os.environ[_STORAGE]
    if watch.interrupted:
        return INTERRUPTED
    return BAD_INPUT if code == USAGE_ERROR else int(code)


def _calls(args: argparse.Namespace, registry: Registry) -> list[ModelCall]:
    """Return the calls of a model's plans, with the dtypes that each chosen backend prefers."""
    options = LoadOptions(**{name: getattr(args, name) for name in MODEL_OPTIONS})
    found: dict[ModelCall, None] = {}
    for backend in split_backends(",".join(args.backend)) if args.backend else available(registry):
        checkpoint = read_checkpoint(args.model, registry)
        found |= dict.fromkeys(model_calls(checkpoint, options, registry, backend,
                                           sequences=SEQUENCES))
    return list(found)


def _flags(names: Iterable[str]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names]


def _arguments(args: argparse.Namespace) -> list[str]:
    found = ["-c", os.devnull, "--rootdir", os.curdir, "--noconftest", "-ra", "-p",
             "no:cacheprovider", "-p", "core.conformance.plugin", "--pyargs", "core.conformance"]
    for name in OPTIONS:
        value: Any = getattr(args, name.replace("-", "_"))
        if value is True:
            found.append(flag(name))
        elif value not in (None, False):
            found += [f"{flag(name)}={v}" for v in (value if isinstance(value, list) else [value])]
    return found + (["-k", args.k] if args.k is not None else []) + ["-q"] * args.quiet


class _Watch:
    """Note that the user interrupted the run: pytest's exit code says the same of other ends."""

    interrupted = False

    def pytest_keyboard_interrupt(self, excinfo: Any) -> None:  # noqa: ANN401 - pytest's own
        self.interrupted = excinfo.type is KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
