"""Tries one bad kernel with every tool: `ZOO=NAME python -m zoo.run FOLDER` prints what they say.

FOLDER holds what `prepare` has put there, and gets a folder of the kernel's own.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

SHAPES = {"long": {"layers": 1, "heads": 2, "kv_heads": 1, "positions": 2100},
          "groups of 7": {"layers": 1, "heads": 14, "kv_heads": 2, "dim": 112},
          "groups of 3": {"layers": 1, "heads": 6, "kv_heads": 2, "dim": 96},
          "d of 256": {"layers": 1, "heads": 2, "kv_heads": 1, "dim": 512}}
CHOICE = ["--only-plugins", "zoo,cpu_numpy"]


def prepare(folder):
    """Write the small models."""
    from format_models import random_model

    from core.installed.registry import default_registry
    from core.plan.weights import no_progress
    from models.checkpoints.base import SHIPPED
    from models.checkpoints.huggingface.writer import write_huggingface
    from models.checkpoints.source import Source
    (folder / "stories").symlink_to(SHIPPED / "stories-llama2")
    for name, shape in SHAPES.items():
        (folder / name).mkdir()
        write_huggingface(Source(random_model("llama2", vocab=512, **shape), default_registry()),
                          folder / name, "f32", None, no_progress)


def tools(name, bad, folder, own):
    """Return the command of each tool, by its name in the table: (module, arguments)."""
    from zoo.bad import CRASH_S
    ids = ",".join(str(5 + 7 * i % 400) for i in range(bad.tokens))
    apart = ["--isolate", "--step-timeout", str(CRASH_S)] if bad.fatal else []
    model = ["--model", str(folder / bad.model), "--prompt-ids", ids, "--max-new-tokens",
             str(bad.new), "--capsules", str(own), *CHOICE]
    return {
        "conformance": ("conform", ["--backend", "zoo", "--op", bad.op, *CHOICE, *apart, "--",
                                    "-x", "-q"]),
        "--check": ("run", [*model, "--backend", "zoo,cpu_numpy", "--check", "reference", *apart]),
        "verify --blame": ("verify", ["cpu_numpy", "zoo,cpu_numpy", *model, "--blame", *apart]),
        "replay": ("verify", ["--replay", "CAPSULE", "--backend", "zoo", *CHOICE, *apart])}


def said(module, arguments, log):
    """Run a command in this process, and return (exit code, what it and its children print)."""
    import importlib
    kept = [os.dup(1), os.dup(2)]
    with log.open("w+b") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            code = importlib.import_module(f"models.{module}").main(arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
    return code, log.read_text(errors="replace")


def capsule_of(bad, folder, own):
    """Return a capsule that a tool left of the bad kernel, else one of a right kernel's call."""
    left = sorted(own.glob("*-zoo_*.npz"))
    if left:
        return left[0]
    right = own / "right"
    module, arguments = tools("", bad, folder, right)["--check"]
    node = {"rms_norm": "layers.0.input_layernorm", "attention": "layers.0.attention",
            "linear": "layers.0.*q_proj*"}.get(bad.op, f"layers.0.{bad.op}")
    cut = arguments.index("--backend")
    said(module, [*arguments[:cut], "--backend", "cpu_numpy", "--no-fusion", "--capture", node],
         own / "capture.log")
    return next(iter(sorted(right.glob("*.npz"))), None)


def main(folder):
    from zoo.bad import BAD
    from zoo.kernels import kept
    name = os.environ["ZOO"]
    bad, own = BAD[name], folder / f"tried-{name}"
    own.mkdir()
    found, modes = {}, np.geterr()
    for tool, (module, arguments) in tools(name, bad, folder, own).items():
        kept.clear()
        np.seterr(**modes)  # as in a process of its own
        if tool == "replay":
            capsule = str(capsule_of(bad, folder, own))
            kept.clear()
            arguments = [capsule if a == "CAPSULE" else a for a in arguments]
        found[tool] = said(module, arguments, own / f"{tool.strip('-').split()[0]}.log")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
