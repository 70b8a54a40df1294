"""Declare options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from core.errors import OptionError
from core.installed.loader import Plugins
from core.installed.registry import Registry
from models.checkpoints.base import DEFAULT_MODEL, shipped_models
from models.checkpoints.quantization import Quantization
from models.cli.probe import Prober
from models.engine.options import EngineOptions, LoadOptions


def add_model_option(parser: argparse._ActionsContainer, default: str | None = DEFAULT_MODEL,
                     ) -> None:
    """Add --model."""
    parser.add_argument("--model", default=default, metavar="PATH|NAME",
                        help="a model folder or file, an id of the Hugging Face hub (Org/Name, "
                             "Org/Name@revision), or one that ships with the package: "
                             f"{', '.join(shipped_models())} (default: {DEFAULT_MODEL})")


BACKEND_OPTIONS = ("device", "threads", "allow_tf32")
PLUGIN_OPTIONS = ("only_plugins", "without_plugins")
QUANTIZATION = ("quantize", "group_size", "keep", "quantize_only")


Options = type[LoadOptions] | type[EngineOptions]


def add_load_options(parser: argparse.ArgumentParser, kind: Options = LoadOptions, *,
                     only: Collection[str] = (), without: Collection[str] = ()) -> None:
    """Add an argument for each field of the options, or `only` for some, or for all `without`."""
    for field in fields(kind):
        if field.name in without or (only and field.name not in only):
            continue
        argument = dict(field.metadata)
        flag = argument.pop("flag") or f"--{field.name.replace('_', '-')}"
        default = [] if argument.get("action") == "append" else field.default
        parser.add_argument(flag, dest=field.name, default=default, **argument)


def load_options(args: argparse.Namespace, kind: type[LoadOptions] = LoadOptions,
                 **overrides: Any) -> LoadOptions:  # noqa: ANN401 - fields of LoadOptions
    """Return what the arguments of `add_load_options` say, with some fields replaced."""
    given = {f.name: getattr(args, f.name) for f in fields(kind) if hasattr(args, f.name)}
    return kind(**{**given, **overrides})


def whole_registry(args: argparse.Namespace, prober: Prober) -> Registry:
    """Return the chosen plugins, each examined by `prober` first; any backend may take the backend
    options.

    Raises OptionError for one that none takes, or an unknown plugin.
    """
    options = load_options(args)
    registry = Registry(Plugins(choice=options.plugin_choice, examine=prober),
                        options.backend_options)
    registry.check_options(list(registry.specs))
    return registry


def quantization(args: argparse.Namespace) -> Quantization | None:
    """Return what the QUANTIZATION options say. Raises OptionError."""
    return Quantization.parse(args.quantize, args.group_size, args.keep, args.quantize_only)


def given_ids(args: argparse.Namespace) -> list[int] | None:
    """Return the tokens of --prompt-ids, None without it. Raises OptionError beside --prompt."""
    if args.prompt_ids is None:
        return None
    if args.prompt is not None:
        raise OptionError("--prompt and --prompt-ids cannot be used together")
    try:
        return [int(i) for i in args.prompt_ids.split(",") if i.strip()]
    except ValueError:
        raise OptionError(f"--prompt-ids {args.prompt_ids!r}: expected integers such as 1,2,3"
                          ) from None
