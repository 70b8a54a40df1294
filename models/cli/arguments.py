"""Options that several commands share."""

from __future__ import annotations

import argparse
import re

from core.errors import OptionError
from core.plugins.backend import BackendOptions
from core.plugins.registry import Registry, default_registry
from models.checkpoints.quantization import SCHEMES, Quantization


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """--device, --threads and --allow-tf32, for the backends that take them."""
    parser.add_argument("--device", type=int, metavar="N", help="which GPU, counted from 0")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: all cores)")
    parser.add_argument("--allow-tf32", action="store_true", default=None,
                        help="f32 products on a GPU may round their inputs to TF32")


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """--deterministic and --lock: which kernels may be chosen at all."""
    parser.add_argument("--deterministic", action="store_true", help="only kernels that declare, "
                        "and show on their op's samples, equal bits from run to run")
    parser.add_argument("--lock", metavar="FILE", help="only the kernels of a lock file, unchanged")


def chosen_registry(args: argparse.Namespace, *uses: str | None) -> Registry:
    """Everything installed, its backends opened with the options of `add_backend_options`.

    uses  the arguments that name backends, such as "a,b" and "attention=c"; without any, all may
          be used. Raises OptionError for an option that none of them takes.
    """
    registry = default_registry(BackendOptions(args.device, args.threads, args.allow_tf32))
    words = {word for text in uses if text for word in re.split("[,+:=]", text)}
    named = [name for name in registry.specs if name in words or not uses]
    if named:  # an unknown name is reported where it is used
        registry.check_options(named)
    return registry


def given_ids(args: argparse.Namespace) -> list[int] | None:
    """The tokens of --prompt-ids, None without it. Raises OptionError beside --prompt."""
    if args.prompt_ids is None:
        return None
    if args.prompt is not None:
        raise OptionError("--prompt and --prompt-ids cannot be used together")
    try:
        return [int(i) for i in args.prompt_ids.split(",") if i.strip()]
    except ValueError:
        raise OptionError(f"--prompt-ids {args.prompt_ids!r}: expected integers such as 1,2,3"
                          ) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `parsed` reads, for every command that quantises."""
    parser.add_argument("--quantize", choices=tuple(SCHEMES),
                        help="quantise projections and output head; int4 has a zero for each group")
    parser.add_argument("--group-size", type=int, metavar="N",
                        help="weights that share a scale (default: int8 64, int4 128)")
    parser.add_argument("--keep", action="append", default=[], metavar="PATTERN",
                        help="keep matching weights in full precision, such as lm_head.weight or "
                             "'model.layers.0.*'; may repeat")
    parser.add_argument("--quantize-only", action="append", default=[], metavar="PATTERN",
                        help="quantise matching weights only; may repeat")


def parsed(args: argparse.Namespace) -> Quantization | None:
    """What the options of `add_arguments` say. Raises OptionError."""
    return Quantization.parse(args.quantize, args.group_size, args.keep, args.quantize_only)


