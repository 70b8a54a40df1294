"""python -m models.serve: serve a model to clients of OpenAI's API."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import socket
import stat
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import KernelError, OptionError, missing_packages
from core.installed.registry import Registry, split_backends
from core.isolation import TIMEOUT_S, check_limit
from core.output import escaped
from core.reading import read_file
from models.checkpoints.base import DEFAULT_MODEL, Checkpoint, read_checkpoint, shipped_models
from models.checkpoints.lazy import abstract_arrays
from models.cli import report
from models.cli.arguments import add_load_options, load_options
from models.cli.command import command
from models.cli.console import tell
from models.engine.load import load_engine
from models.engine.model_sampling import MODEL, OPTIONS, settle_sampling
from models.engine.options import EngineOptions, LoadOptions
from models.serving.conversation import ConversationEncoder
from models.serving.engine import Engine
from models.serving.http.listen import bind, run_app
from models.serving.link.cores import cores, left_to_http, told
from models.serving.link.messages import EngineFacts
from models.serving.live.check import RATE, LiveCheck, check_rate
from models.tokenizers.base import choose_template

if TYPE_CHECKING:
    from models.serving.async_engine import AsyncEngine

_EXTRA = ("fastapi", "uvicorn", "prometheus_client")
_MIB = 1 << 20  # bytes; a file with keys may have so many


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    p = argparse.ArgumentParser("python -m models.serve", description="Serve a model over HTTP.")
    p.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL",
                   help="a model folder or file, an id of the Hugging Face hub, or one that ships "
                        f"with the package: {', '.join(shipped_models())} "
                        f"(default: {DEFAULT_MODEL})")
    p.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                   help="where to listen (default: 127.0.0.1, this machine alone)")
    p.add_argument("--port", type=int, default=8000, metavar="N",
                   help="0 takes a free one (default: 8000)")
    p.add_argument("--api-key-file", type=Path, metavar="FILE",
                   help="serve only clients that send one of these keys, one a line")
    p.add_argument("--no-auth", action="store_true",
                   help="serve everyone who reaches --host, also beyond this machine")
    p.add_argument("--served-model-name", metavar="NAME",
                   help="what clients call the model (default: the model's own name)")
    p.add_argument("--chat-template", metavar="NAME|FILE",
                   help="the chat template: one of the model's by name, or a file")
    p.add_argument("--escape-special", action=argparse.BooleanOptionalAction, default=True,
                   help="control tokens that messages contain are ordinary text (default), or "
                        "control tokens")
    p.add_argument("--sampling", choices=(OPTIONS, MODEL), default=MODEL,
                   help="where a request says nothing, sample as the model's files say (model, the "
                        "default), or as OpenAI's API does")
    p.add_argument("--body-limit", type=int, default=16, metavar="MIB",
                   help="the largest request (default: 16)")
    p.add_argument("--drain", type=int, default=30, metavar="SECONDS",
                   help="how long requests may go on after SIGTERM (default: 30)")
    p.add_argument("--check", metavar="BACKEND[,BACKEND]",
                   help="verify a share of the steps there while serving; `reference` is the "
                        "float64 definition")
    p.add_argument("--check-rate", type=float, metavar="X",
                   help=f"with --check: the share of steps (default: {RATE:g})")
    p.add_argument("--step-timeout", type=float, default=TIMEOUT_S, metavar="S",
                   help="the seconds that one kernel may take; then it is named, and the server "
                        f"ends with code 3 (default: {TIMEOUT_S:g})")
    add_load_options(p, without=["chunk"])  # --max-num-batched-tokens bounds a step
    for field in fields(EngineOptions):
        argument = dict(field.metadata)
        p.add_argument(argument.pop("flag") or f"--{field.name.replace('_', '-')}",
                       dest=field.name, default=field.default, **argument)
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 ended by SIGTERM, 2 the input cannot be used, 3 a kernel did not return, 130
    interrupted."""
    args = parser().parse_args(argv)
    _check_installed()
    from models.serving.async_engine import AsyncEngine  # other commands need no asyncio
    options, engine_options = load_options(args), EngineOptions(
        **{f.name: getattr(args, f.name) for f in fields(EngineOptions)})
    if args.body_limit < 1 or not 0 <= args.drain < 2**31 or not 0 <= args.port < 65536:
        raise OptionError("--body-limit must be at least 1, --drain 0 to 2147483647, --port 0 to "
                          "65535")
    if args.check_rate is not None and args.check is None:
        raise OptionError("--check-rate goes with --check: name what to check against")
    limit = check_limit(args.step_timeout, True)
    rate = check_rate(RATE if args.check_rate is None else args.check_rate)
    against = [] if args.check is None else split_backends(args.check)
    if not (keys := _keys(args.api_key_file)) and not args.no_auth and not _is_loopback(args.host):
        raise OptionError(f"--host {args.host} can be reached from other machines: give "
                          "--api-key-file FILE, or --no-auth to serve everyone")
    registry = options.registry(args.check)
    report.left_out(registry)
    with bind(args.host, args.port) as listener:
        checkpoint = read_checkpoint(args.model, registry)
        spare = _spare(options, registry, checkpoint)
        engine_process = partial(open_engine, args.model, options, engine_options, against, rate,
                                 spare)
        template = choose_template(checkpoint.tokenizer, args.chat_template)
        conversations = None if template is None else ConversationEncoder(
            checkpoint.tokenizer, template, escape=args.escape_special)
        defaults = _defaults(args.sampling, checkpoint)
        engine = AsyncEngine(engine_process, checkpoint.tokenizer, step_timeout=limit)
        try:
            name = args.served_model_name or checkpoint.name
            return _serve(args, engine, listener, keys, name=name, mode=options.mode,
                          notes=checkpoint.notes, conversations=conversations, defaults=defaults,
                          max_queue=engine_options.max_queue)
        finally:
            engine.close()


def open_engine(model: str, options: LoadOptions, engine_options: EngineOptions,
                against: Sequence[str] = (), rate: float = RATE,
                spare: int | None = None) -> Engine:
    """Open the engine, with a progress bar, in the process that runs it.

    against, rate  what a share of its steps is compared with; nothing: none is
    spare          cores that its kernels leave to HTTP
    """
    registry = options.registry(*against, spare=spare)
    with report.Loading() as loading:
        engine = load_engine(model, options, engine_options, registry=registry,
                             progress=loading.progress)
    if against:
        engine.submitter = LiveCheck(engine.executor, registry, against, rate, tell)
    return engine


def _serve(args: argparse.Namespace, engine: AsyncEngine, listener: socket.socket,
           keys: Sequence[str], **served: Any) -> int:  # noqa: ANN401 - fields of Service
    from models.serving.http.app import create_app  # while the other process loads the model
    from models.serving.http.service import Service
    facts, service = engine.facts, Service(engine, **served)
    app = create_app(service, keys=keys, body_limit=args.body_limit * _MIB)
    for note in service.notes:
        tell(f"note: {note}")
    host, port = listener.getsockname()[:2]
    listener.listen(2048)
    shown = f"[{host}]" if ":" in host else host
    print(escaped(f"{service.name} at http://{shown}:{port}"), flush=True)
    tell(_fits(facts))
    tell(f"kernels: {', '.join(f'{n} nodes {b}' for b, n in facts.kernels.items())}; "
         f"ledger {facts.ledger_hash} (/v1/ledger)")
    run_app(app, listener, engine, drain=args.drain)
    if engine.hung is not None:
        raise KernelError(engine.hung)
    return 0


def _fits(facts: EngineFacts) -> str:
    tokens = facts.blocks * facts.block_size
    return (f"KV cache: {tokens:,} tokens, {min(facts.max_num_seqs, tokens // facts.max_model_len)}"
            f" sequences of {facts.max_model_len:,} at once, at most {facts.max_num_seqs}; "
            f"{facts.max_num_batched_tokens:,} tokens a step")


def _spare(options: LoadOptions, registry: Registry, checkpoint: Checkpoint) -> int | None:
    """Return the cores that kernels leave to HTTP, and tell it; None where there are none, or the
    user or the backend decides."""
    first = split_backends(options.backend)[0]
    weights = sum(array.size for array in abstract_arrays(checkpoint.arrays).values())
    if (options.threads is not None or "spare" not in registry.spec(first).options
            or not left_to_http(weights, cores())):
        return None
    tell(told(weights, cores()))
    return 1


def _check_installed() -> None:
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        fix = "pip install 'kernelyard[serve]'"
        raise missing_packages("a server needs more packages", dict.fromkeys(missing, fix),
                               OptionError)


def _keys(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = read_file(path, _MIB).decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise OptionError(f"--api-key-file {path} cannot be read: {error}") from None
    if keys := [line.strip() for line in lines if line.strip()]:
        if path.stat().st_mode & stat.S_IROTH:
            tell(f"note: every user of this machine can read the keys: chmod o-r {path}")
        return keys
    raise OptionError(f"--api-key-file {path} has no key; write one a line")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _defaults(asked: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the sampling where a request says nothing, and tell it. Raises OptionError for what
    the model's files ask for and is not supported."""
    values, origins = settle_sampling(asked, {}, checkpoint.generation)
    found: dict[str, Any] = {name: values[name] for name in origins}
    if asked == MODEL and checkpoint.generation.stop:
        found["stop"] = checkpoint.generation.stop
    if found:
        tell(f"sampling where a request says nothing: "
             f"{', '.join(f'{name} {value}' for name, value in found.items())} "
             f"({checkpoint.generation.where})")
    return found


if __name__ == "__main__":
    sys.exit(main())
