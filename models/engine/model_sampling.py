"""Settle how to sample: what the caller says, then what the model's files say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import OptionError
from core.reading import shown
from core.runtime.step import Sampling
from models.checkpoints.generation import OFF, GenerationDefaults
from models.serving.sampling_options import RULES, check_number

OPTIONS, MODEL = "options", "model"  #: values of `sampling`
OPTION = "option"  #: the origin of a value that the caller gave


def settle_sampling(sampling: object, given: Mapping[str, object], files: GenerationDefaults,
                    ) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a value for each name in OFF, and where those that are not off come from.

    given   the caller's; None where nothing was said, then the files' counts if `sampling` is
            "model", else it is off
    Raises OptionError where the files ask for more than is supported.
    """
    if not isinstance(sampling, str) or sampling not in (OPTIONS, MODEL):
        raise OptionError(f"sampling is {shown(sampling)}, expected {OPTIONS!r} or {MODEL!r}")
    stated: Mapping[str, float] = {}
    if sampling == MODEL:
        if files.refused:
            raise OptionError(
                f"{files.where} asks for {', '.join(files.refused)}, which is not supported; "
                "sample by options alone: --sampling options (sampling=\"options\")")
        stated = files.sampling
        for name, value in stated.items():
            check_number(f"{files.where}: {name}", value, RULES[name])
    values = {**OFF, **stated, **{k: v for k, v in given.items() if v is not None}}
    origins = {**dict.fromkeys(stated, files.where),
               **{k: OPTION for k, v in given.items() if v is not None}}
    return values, origins


def sampling_line(values: Mapping[str, object], origins: Mapping[str, str]) -> str:
    """Say in one line what is in force, and where it comes from."""
    if not values["temperature"]:
        names = [n for n in ("repetition_penalty",) if values[n] != OFF[n]]
    else:
        names = [n for n in OFF if values[n] != OFF[n]]
    said = [f"{name} {values[name]:g}" + (f" ({origins[name]})" if name in origins else "")
            for name in names]
    if not values["temperature"]:
        origin = origins.get("temperature")
        said.insert(0, "greedy" + (f" ({origin})" if origin else ""))
    return "sampling: " + ", ".join(said)


def in_force(sampling: Sampling) -> dict[str, float]:
    """Return the values of a generation by their names in OFF, and its seed."""
    return {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repetition_penalty": sampling.penalty, "seed": sampling.seed}


def request_defaults(sampling: object, files: GenerationDefaults) -> dict[str, Any]:
    """Return the fields of SamplingParams that hold where a request says nothing; `stop` holds
    always. Raises as `settle_sampling`."""
    values, origins = settle_sampling(sampling, {}, files)
    stop = {"stop": files.stop} if sampling == MODEL and files.stop else {}
    return {**{name: values[name] for name in origins}, **stop}
