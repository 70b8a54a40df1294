"""python -m models.run: generate text, show which kernels did it and, if asked, check them."""

from __future__ import annotations

import argparse
import io
import json
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import CheckError, KernelError, OptionError, PromptError
from core.installed.registry import split_backends
from core.verify.capsules.recorder import Capture, FiniteCheck, Recorder
from core.verify.crosscheck import CrossCheck
from core.verify.verdict import Tally
from models.cli import report
from models.cli.arguments import (
    add_load_options,
    add_model_option,
    given_ids,
    load_options,
    whole_registry,
)
from models.cli.chat import chat
from models.cli.command import command, interrupted
from models.cli.console import tell
from models.cli.isolated import add_isolate_options, isolate
from models.cli.probe import Prober
from models.engine.generate import Generation
from models.engine.load import load
from models.engine.model import Model
from models.engine.model_sampling import MODEL, OPTIONS

DEFAULT_PROMPT = "Once upon a time"
_PROMPT_LIMIT = 64 << 20  # characters of standard input
_PATIENCE = 1.0  # seconds of silence before it is said what is waited for


def parser() -> argparse.ArgumentParser:
    """Return the options, which are also the README's list."""
    p = argparse.ArgumentParser("python -m models.run", description="Run a language model.")
    add_model_option(p)
    p.add_argument("--prompt", help="the text to continue (default: standard input, or "
                                    f"{DEFAULT_PROMPT!r} where that is a terminal or empty)")
    p.add_argument("--prompt-ids", metavar="1,2,3", help="token ids in place of a text")
    p.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    p.add_argument("--sampling", choices=(OPTIONS, MODEL),
                   help="what counts where an option below is not given: the model's files, as "
                        "generation_config.json (default with --chat), or off (default else)")
    p.add_argument("--temperature", type=float, metavar="X", help="0 is greedy, which is off")
    p.add_argument("--top-k", type=int, metavar="K", help="0 is off")
    p.add_argument("--top-p", type=float, metavar="P", help="1 is off")
    p.add_argument("--min-p", type=float, metavar="P", help="0 is off")
    p.add_argument("--repetition-penalty", type=float, metavar="X", help="1 is off")
    p.add_argument("--stop", action="append", default=[], metavar="TEXT",
                   help="stop before this text; may repeat")
    p.add_argument("--seed", type=int, help="fixes the random numbers, on any backend")
    add_load_options(p)
    p.add_argument("--explain", nargs="?", const="table", choices=("table", "json", "graph", "dot"),
                   help="show which kernel runs what, and why others do not, beside the text; "
                        "json, graph and dot print only that, not the text")
    p.add_argument("--check", metavar="BACKEND[,BACKEND]",
                   help="compute every node there as well and compare; `reference` is the float64 "
                        "definition")
    p.add_argument("--check-stop", action="store_true",
                   help="with --check: stop at the first wrong kernel instead of counting on")
    add_isolate_options(p)
    p.add_argument("--check-finite", action="store_true", help="stop at the first NaN or Inf")
    p.add_argument("--allow-nonfinite", action="store_true",
                   help="go on where the largest logit is NaN or infinite (default: an error)")
    p.add_argument("--capture", action="append", default=[], metavar="NODE",
                   help="write a replay capsule of this node (a glob); may repeat")
    p.add_argument("--capsules", type=Path, default=Path("capsules"), metavar="FOLDER",
                   help="where replay capsules go, of --capture and of what a check finds wrong "
                        "(default: ./capsules)")
    p.add_argument("--chat", action="store_true", help="a conversation, by the model's template")
    p.add_argument("--chat-template", metavar="NAME|FILE",
                   help="with --chat: one of the model's templates by name, or a Jinja file")
    p.add_argument("--escape-special", action=argparse.BooleanOptionalAction,
                   help="with --chat: control tokens that a message contains, such as <|im_end|>, "
                        "are ordinary text (default: yes)")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument("--list-backends", action="store_true",
                   help="what is installed, and what is broken")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a check failed, 2 the input cannot be used, 3 a kernel failed, 130
    interrupted."""
    args = parser().parse_args(argv)
    if (code := isolate(args, "models.run", argv)) is not None:
        return code
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without some character shows `?`
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdin else "replace")
    if args.list_backends:
        report.backends(whole_registry(args, Prober()))
        return 0
    options = load_options(args)
    registry = options.registry(args.check)
    report.left_out(registry)
    if args.check is not None and args.check_finite:
        raise OptionError("--check and --check-finite cannot be used together: take one at a time")
    if args.check_stop and args.check is None:
        raise OptionError("--check-stop goes with --check: name what to check against")
    if args.chat and (args.json or args.prompt is not None or args.prompt_ids is not None):
        raise OptionError("--chat is a conversation: it takes no --prompt, --prompt-ids or --json")
    if args.chat_template is not None and not args.chat:
        raise OptionError("--chat-template goes with --chat")
    if args.escape_special is not None and not args.chat:
        raise OptionError("--escape-special goes with --chat: a prompt writes control tokens")
    if args.chat and args.explain not in (None, "table"):
        raise OptionError(f"--explain {args.explain} prints only that: it cannot be used with "
                          "--chat")
    if args.json and args.explain in ("graph", "dot"):
        raise OptionError(f"--explain {args.explain} cannot be used with --json: the object holds "
                          "the ledger")
    prompt = "" if args.chat else _prompt(args)
    recorder = Recorder(args.capsules, args.capture)
    check = CrossCheck(registry, split_backends(args.check), stop=args.check_stop,
                       recorder=recorder) if args.check is not None else None
    tally = check.tally if check is not None else None
    observer = check or (FiniteCheck(recorder) if args.check_finite else
                         Capture(recorder) if args.capture else None)
    with report.Loading() as loading, load(
            args.model, options, registry=registry, progress=loading.progress,
            ) as model, model.session.observed(observer):
        loading.stop()
        for note in model.notes:
            tell(f"note: {note}")
        stopped, failed = False, None
        generation = None if args.chat else model.generate(prompt, **_sampling(args))
        try:
            if generation is None:
                chat(model, _sampling(args), partial(report.started, model), args.chat_template,
                     escape=args.escape_special is not False)
            else:
                stopped = _stream(model, generation, _shown(model, prompt, args), tally)
        except (CheckError, KernelError) as error:  # what was found until then is shown first
            failed = error
        if generation is not None and args.json:
            print(json.dumps(report.as_json(model, generation, tally,
                                            ledger=args.explain is not None)))
        else:
            if tally is not None:
                report.checked(tally)
            if args.explain == "table":
                report.explain(model, generation)
            elif args.explain:
                print(report.explained(model, args.explain))
    for path in recorder.written:
        tell(f"capsule: {path}")
    if failed is not None:
        raise failed
    if stopped:
        return 130
    if recorder.unmatched():
        raise OptionError(f"--capture {recorder.unmatched()[0]!r} matches no node that ran; "
                          "--explain graph lists the nodes")
    return 0 if tally is None or tally.ok else 1


def _shown(model: Model, prompt: str | list[int], args: argparse.Namespace) -> str | None:
    """Return the prompt as the story shows it, None where standard output is for other things."""
    if args.json or args.explain not in (None, "table"):
        return None
    return prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt)


def _stream(model: Model, generation: Generation, prompt: str | None, tally: Tally | None) -> bool:
    """Generate; print the story as it comes, and its speed. True if Ctrl-C ended it."""
    if prompt is None:
        return interrupted(generation, lambda piece: None)
    report.started(model)
    print(prompt, end="", flush=True)
    try:
        stopped = interrupted(generation, lambda piece: print(piece, end="", flush=True))
    finally:
        print(flush=True)
    report.speed(model, generation, tally)
    return stopped


def _prompt(args: argparse.Namespace) -> str | list[int]:
    ids = given_ids(args)
    if ids is not None:
        return ids
    if args.prompt is not None:
        if not args.prompt:
            raise PromptError("the prompt is empty: give some text, or leave --prompt out")
        return str(args.prompt)
    if sys.stdin is None or sys.stdin.isatty():
        return DEFAULT_PROMPT
    waiting = threading.Timer(_PATIENCE, tell, ["waiting for a prompt on standard input; --prompt "
                                                "gives one, and < /dev/null takes the default"])
    waiting.daemon = True
    waiting.start()
    try:
        text = sys.stdin.read(_PROMPT_LIMIT + 1)
    finally:
        waiting.cancel()
    if len(text) > _PROMPT_LIMIT:
        raise PromptError(f"standard input has more than {_PROMPT_LIMIT:,} characters, the most "
                          "that a prompt may have; give a shorter one")
    return text.removesuffix("\n") or DEFAULT_PROMPT


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    return {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature,
            "top_k": args.top_k, "top_p": args.top_p, "min_p": args.min_p,
            "repetition_penalty": args.repetition_penalty, "stop": args.stop, "seed": args.seed,
            "sampling": args.sampling or (MODEL if args.chat else OPTIONS),
            "allow_nonfinite": args.allow_nonfinite}


if __name__ == "__main__":
    sys.exit(main())
