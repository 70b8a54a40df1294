"""Runs an engine in a process of its own: commands come through a pipe, tokens go back."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from core.errors import KernelError, KernelyardError
from models.serving.engine import Engine
from models.serving.link.messages import Delta, EngineFacts, EngineState, Message, sequence_id
from models.serving.link.preparing import Preparing
from models.serving.link.warm import warm
from models.serving.live.check import LiveCheck
from models.serving.live.watch import StepWatch
from models.serving.params import SamplingParams
from models.serving.request import RequestOutput

BEAT = 0.5  # seconds between signs of life
HUNG = 3  # exit code of a process whose kernel did not return
#: what may be asked of an engine
QUESTIONS: dict[str, Callable[[Engine], Any]] = {
    "ledger": lambda engine: {
        **engine.ledger.to_json(), "summary": engine.ledger.summary(),
        "check": check.to_json() if (check := _check_of(engine)) is not None else None},
    "check": Engine.check}


def _check_of(engine: Engine) -> LiveCheck | None:
    return engine.submitter if isinstance(engine.submitter, LiveCheck) else None


def run_worker(pipe: Connection, opener: Callable[[], Engine], limit_s: float, lines: str) -> None:
    """Open an engine and serve until the other end closes: the process's main function.

    Signals that reach the whole group of processes are left to the other side, which may want to
    finish its requests first.

    limit_s  seconds that one kernel may take; after that the process names it, and ends
    lines    the path of a file for the lines in which the process stands when a signal ends it
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable(open(lines, "w"), all_threads=False)  # noqa: SIM115 - until the end
    sender, watch = _Sender(pipe), StepWatch(limit_s)
    threading.Thread(target=_end_late, args=(watch, sender), daemon=True).start()
    try:
        engine = opener()
        facts = warm(engine)
    except BaseException as error:
        with suppress(OSError):  # the other side has gone
            sender.send([("failed", portable(error))])
        return
    with engine:
        _Worker(pipe, engine, sender, watch).run(facts)


class _Sender:
    """Sends messages from any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()
        self.ready = False  # whether the other side knows that the engine is open

    def send(self, messages: list[Message]) -> None:
        data = pickle.dumps(messages, protocol=pickle.HIGHEST_PROTOCOL)
        with self._lock:
            self._pipe.send_bytes(data)


def _end_late(watch: StepWatch, sender: _Sender) -> None:
    """End the process once a kernel has taken too long: its thread cannot be ended alone."""
    while (said := watch.late()) is None:
        time.sleep(BEAT / 2)
    with suppress(OSError):
        sender.send([("hung", said) if sender.ready else ("failed", KernelError(said))])
    os._exit(HUNG)


def portable(error: BaseException) -> KernelyardError:
    """Return an error that can be sent; one that is not ours is shown here and named there."""
    if isinstance(error, KernelyardError):
        try:
            pickle.loads(pickle.dumps(error))
            return error
        except Exception:  # it takes other arguments than its text
            return KernelyardError(str(error))
    traceback.print_exception(error)
    return KernelyardError(f"the engine failed with {type(error).__name__}: {error}")


class _Worker:
    """Carries out commands between steps; two threads read them and send signs of life."""

    def __init__(self, pipe: Connection, engine: Engine, sender: _Sender, watch: StepWatch) -> None:
        self._pipe, self._engine, self._sender, self._watch = pipe, engine, sender, watch
        self._commands = SimpleQueue[Message]()
        self._sent: dict[str, tuple[int, int]] = {}  # tokens, positions of prompt log-probabilities
        self._out: list[Message] = []
        self._state = EngineState()
        self._preparing = Preparing(engine, self._commands)

    def run(self, facts: EngineFacts) -> None:
        """Serve until "close", or until the pipe is closed."""
        try:
            self._sender.send([("ready", facts)])
            self._sender.ready = True
            threading.Thread(target=self._read, daemon=True).start()
            threading.Thread(target=self._beat, daemon=True).start()
            while self._obey():
                self._step()
                self._flush()
        except OSError:  # the other side has gone
            pass

    def _read(self) -> None:
        try:
            while True:
                for command in pickle.loads(self._pipe.recv_bytes()):
                    self._commands.put(command)
        except (EOFError, OSError):
            self._commands.put(("close",))

    def _beat(self) -> None:
        pause = threading.Event()
        try:
            while not pause.wait(BEAT):
                self._sender.send([("beat", self._state)])
        except OSError:
            self._commands.put(("close",))

    def _obey(self) -> bool:
        """Carry out the commands that have come; without work, wait for one. False at the end."""
        wait = not self._engine.has_unfinished_requests
        while True:
            try:
                kind, *rest = self._commands.get(block=wait)
            except Empty:
                return True
            if kind == "close":
                return False
            wait = False
            if kind in ("add", "prepared"):
                self._add(kind == "prepared", *rest)
            elif kind == "abort":
                self._abort(*rest)
            else:
                self._ask(*rest)

    def _add(self, prepared: bool, request_id: str, ids: bytes, params: Sequence[SamplingParams],
             salt: str) -> None:
        prompt, added = array("i", ids).tolist(), list[str]()
        try:
            if (not self._preparing.release(request_id) if prepared
                    else self._preparing.holds(request_id, ids, params, salt)):
                return
            for index, one in enumerate(params):
                name = sequence_id(request_id, index)
                self._engine.add_request(name, prompt, one, salt=salt, streams=False)
                added.append(name)
        except Exception as error:  # all of the texts, or none
            self._abort(added)
            self._post("refused", request_id, portable(error))
            return
        self._sent.update(dict.fromkeys(added, (0, 0)))
        self._post("added", request_id)

    def _abort(self, names: Sequence[str]) -> None:
        for name in names:
            self._preparing.abort(name)
            self._engine.abort_request(name)
            self._sent.pop(name, None)

    def _ask(self, number: int, question: str) -> None:
        try:
            self._post("answer", number, QUESTIONS[question](self._engine))
        except KernelyardError as error:
            self._post("answer", number, error)

    def _step(self) -> None:
        try:
            with self._watch.step():
                outputs = self._engine.step()
            self._tell(outputs)
        except Exception as error:  # the engine has ended every request, and can be used on
            self._sent.clear()
            self._post("error", portable(error))
        engine, pool = self._engine, self._engine.pool
        self._state = EngineState(
            len(engine.scheduler.running), len(engine.scheduler.waiting), pool.blocks - pool.free,
            pool.queries, pool.hits, asdict(engine.stats),
            check.counts if (check := _check_of(engine)) is not None else None,
            len(engine.executor.steps.made))

    def _tell(self, outputs: Sequence[RequestOutput]) -> None:
        """Say what has changed, as shortly as it can be said."""
        names, tokens = list[str](), list[int]()
        for output in outputs:
            one, name = output.outputs[0], output.request_id
            count, positions = self._sent[name]
            if (0 < count == len(one.token_ids) - 1 and not one.finished and one.logprobs is None
                    and output.prompt_logprobs is None):
                self._sent[name] = count + 1, positions
                names.append(name)
                tokens.append(one.token_ids[-1])
            else:
                self._post("tokens", self._delta(output))
        if names:
            self._post("next", names, tokens)

    def _delta(self, output: RequestOutput) -> Delta:
        one, name = output.outputs[0], output.request_id
        tokens, positions = self._sent.pop(name)
        prompt = output.prompt_logprobs
        if not one.finished:
            self._sent[name] = len(one.token_ids), len(prompt or ())
        return Delta(name, one.token_ids[tokens:],
                     None if one.logprobs is None else one.logprobs[tokens:],
                     None if prompt is None else prompt[positions:],
                     one.finish_reason, one.stop_reason, output.cached_tokens)

    def _post(self, *message: Any) -> None:  # noqa: ANN401 - one of this module's messages
        self._out.append(message)

    def _flush(self) -> None:
        if self._out:
            self._sender.send(self._out)
            self._out = []
