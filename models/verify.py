"""python -m models.verify: compare backends with each other, or with saved answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from core.errors import OptionError
from core.installed.registry import Registry
from core.runtime.step import Sampling
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.recorder import Recorder
from core.verify.capsules.replay import REPEAT, replay
from core.verify.capsules.shrink import shrink
from core.verify.policies import REFERENCE, parse_policy
from models.analysis import verify_report
from models.analysis.answers import Answers, ours, transformers_answers
from models.analysis.pairs import compare_policies
from models.analysis.parity import compare_answers
from models.analysis.prompt_run import PromptRun, open_with
from models.cli import report
from models.cli.arguments import (
    add_load_options,
    add_model_option,
    given_ids,
    load_options,
)
from models.cli.command import command
from models.cli.console import tell
from models.cli.isolated import add_isolate_options, isolate
from models.engine.model import Model
from models.engine.options import LoadOptions

DEFAULT_PROMPT = "Once upon a time"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "python -m models.verify", description="Find the kernel that is wrong. BACKENDS is "
        "BACKEND[,BACKEND][+[NODES:]OP=BACKEND[:KERNEL]][+no-fusion], or `reference`.")
    p.add_argument("backends", nargs="*", metavar="BACKENDS", help="two or more, to compare with "
                   "each other; one, for --against and --save (default: cpu_numpy)")
    add_model_option(p)
    p.add_argument("--prompt", help=f"default: {DEFAULT_PROMPT!r}")
    p.add_argument("--prompt-ids", metavar="1,2,3", help="token ids in place of a text")
    p.add_argument("--max-new-tokens", type=int, default=32, metavar="N")
    p.add_argument("--temperature", type=float, default=0.0, metavar="X", help="0 is greedy")
    p.add_argument("--seed", type=int, default=0)
    add_load_options(p, without=["backend"])
    p.add_argument("--blame", action="store_true", help="swap kernels node by node until the "
                   "smallest set that carries the difference is found")
    p.add_argument("--against", metavar="hf|FILE", help="compare logits, greedy tokens and layers "
                   "with transformers, or with an .npz")
    p.add_argument("--save", type=Path, metavar="FILE", help="write the answers (with --against "
                   "hf: transformers') to an .npz")
    p.add_argument("--force", action="store_true", help="let --save replace a file")
    p.add_argument("--replay", type=Path, metavar="FILE", help="run a capsule again")
    p.add_argument("--repeat", type=int, metavar="N", help="for --replay: runs of each backend "
                   f"(default: {REPEAT})")
    p.add_argument("--shrink", action="store_true", help="for --replay: write a capsule of the "
                   "smallest call that is still wrong beside this one")
    p.add_argument("--backend", default="", metavar="NAME[,NAME]",
                   help="for --replay: who runs it (default: the backend that made it)")
    p.add_argument("--capture", action="append", default=[], metavar="NODE",
                   help="write a replay capsule of this node (a glob); may repeat")
    p.add_argument("--capsules", type=Path, default=Path("capsules"), metavar="FOLDER",
                   help="where capsules go (default: ./capsules)")
    add_isolate_options(p)
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 all agree, 1 something is wrong, 2 bad input, 3 a kernel failed."""
    args = parser().parse_args(argv)
    if (code := isolate(args, "models.verify", argv)) is not None:
        return code
    if args.replay is not None:
        return _replay(args)
    if args.shrink or args.repeat is not None:
        raise OptionError("--shrink and --repeat go with --replay: name a capsule")
    if args.against is not None or args.save is not None:
        return _against(args)
    return _pairs(args)


def _pairs(args: argparse.Namespace) -> int:
    registry = _registry(args)
    policies = [parse_policy(text, registry) for text in args.backends]
    runner = next((p for p in policies if p is not None), None)
    if runner is None:
        raise OptionError("verify needs two or more BACKENDS, such as `cpu_numpy reference` or "
                          "`cpu_numpy cpu_numba,cpu_numpy`")
    if args.max_new_tokens < 1:
        raise OptionError(f"--max-new-tokens {args.max_new_tokens}: expected at least 1")
    options = _options(args)
    with open_with(args.model, runner, options) as model:
        ids = _ids(args, model)
    recorder = Recorder(args.capsules, args.capture)
    prompt = PromptRun(ids, args.max_new_tokens, Sampling(args.temperature, seed=args.seed))
    found = compare_policies(args.model, args.backends, prompt, registry, blame=args.blame,
                             recorder=recorder, options=options)
    if recorder.unmatched():
        raise OptionError(f"--capture {recorder.unmatched()[0]!r} matches no node that ran; "
                          "python -m models.run --explain graph lists the nodes")
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        verify_report.pairs(found)
    return 0 if found.ok else 1


def _against(args: argparse.Namespace) -> int:
    registry = _registry(args)
    name, *more = args.backends or ["cpu_numpy"]
    policy = parse_policy(name, registry)
    if more or policy is None or args.blame or args.capture:
        raise OptionError("--against and --save take one backend, and neither --blame nor "
                          f"--capture; found {' '.join(args.backends) or 'no backend'}")
    with open_with(args.model, policy, _options(args)) as model:
        theirs = None
        if args.against is not None and args.against != "hf":
            theirs = Answers.read(Path(args.against))
        given = args.prompt is not None or args.prompt_ids is not None
        ids = theirs.ids if theirs is not None and not given else _ids(args, model)
        if args.against == "hf":
            theirs = transformers_answers(Path(model.path), ids, args.max_new_tokens)
        mine = ours(model, model.encode(ids), args.max_new_tokens, name)
        if args.save is not None:
            (theirs or mine).write(args.save, force=args.force)
            tell(f"wrote {args.save}: {(theirs or mine).who}, {len(ids)} prompt tokens")
        if theirs is None:
            return 0
        activations = model.activations
        found = compare_answers(mine, theirs, activations,
                                lambda tokens: model.logits([*mine.ids, *tokens])[-1])
    if args.json:
        print(json.dumps(found.to_json()))
    else:
        verify_report.against(found, mine)
    return 0 if found.ok else 1


def _replay(args: argparse.Namespace) -> int:
    capsule = Capsule.read(args.replay)
    registry = _registry(args)
    if args.backends:
        raise OptionError(f"--replay takes its backends by --backend, found "
                          f"{' '.join(args.backends)}")
    repeat = REPEAT if args.repeat is None else args.repeat
    if repeat < 1:
        raise OptionError(f"--repeat {repeat}: expected at least 1")
    names = [n for n in args.backend.split(",") if n] or [
        str(capsule.entry.get("kernel", "")).partition(":")[0]]
    done = replay(capsule, names, registry, repeat=repeat)
    if args.shrink:
        wrong = [r.who for r in done[1:] if not r.ok and not r.refused and r.who != REFERENCE]
        if not wrong:
            raise OptionError("--shrink makes a wrong call smaller, and no backend of this replay "
                              "is wrong; --backend names one that is")
        small = shrink(capsule, wrong[0], registry, repeat=repeat)
        path = small.write(args.replay.with_name(f"{args.replay.stem}-small.npz"))
        tell(f"capsule: {path}: {small.reason}")
    if args.json:
        print(json.dumps(verify_report.replayed_json(capsule, done)))
    else:
        verify_report.replayed(capsule, done)
    return 0 if all(r.ok for r in done[1:]) else 1


def _options(args: argparse.Namespace) -> LoadOptions:
    return load_options(args, backend=args.backend or "cpu_numpy")


def _registry(args: argparse.Namespace) -> Registry:
    named = [*args.backends, args.backend] if args.backends or args.backend else []
    registry = _options(args).registry(*named)
    report.left_out(registry)
    return registry


def _ids(args: argparse.Namespace, model: Model) -> list[int]:
    ids = given_ids(args)
    if ids is not None:
        return model.encode(ids)
    return model.encode(DEFAULT_PROMPT if args.prompt is None else args.prompt)


if __name__ == "__main__":
    sys.exit(main())
