"""Reads what a client is tried against, and checks what it gets.

A client's file runs in the client's own environment, so this one imports nothing of the project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import Request, urlopen

PROMPTS = ("Once upon a time", "One day", "The little dog", "A girl named Lily")
SEED, TOKENS, TEMPERATURE = 7, 24, 0.8
SAMPLED = {"seed": SEED, "max_tokens": TOKENS, "temperature": TEMPERATURE}


@dataclass(frozen=True)
class Target:
    """Holds a server and what it must answer.

    url            without a path
    folder         the model's, with a tokenizer that transformers reads
    loglikelihood  [context, continuation, sum of log-probabilities, is greedy] by `Model.logits`
    generated      [prompt, continuation of 8 tokens] by `Model.generate`
    """

    url: str
    key: str
    model: str
    folder: str
    loglikelihood: list[list[Any]]
    generated: list[list[str]]

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    def metric(self, name: str) -> int:
        """Return the sum of a counter of /metrics over its labels."""
        request = Request(f"{self.url}/metrics", headers={"Authorization": f"Bearer {self.key}"})
        with urlopen(request, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines
                       if line.startswith(f"kernelyard:{name}{{")))

    def finished(self, before: int, texts: int) -> None:
        """Require that the server has finished so many texts since it had finished `before`."""
        for _ in range(50):
            found = self.metric("request_success_total") - before
            if found >= texts:
                break
            time.sleep(0.1)
        if found != texts:
            fail(f"the server has finished {found} texts, expected {texts}")


def target() -> Target:
    """Return what the file that is the first argument says."""
    return Target(**json.loads(Path(sys.argv[1]).read_text()))


def fail(reason: str) -> NoReturn:
    """End with exit code 1 and a reason, which becomes the client's row."""
    sys.exit(" ".join(reason.split()))


def equal(what: str, found: object, expected: object) -> None:
    """Require that both are equal."""
    if found != expected:
        fail(f"{what}: {found!r}, expected {expected!r}")


def command(name: str, *arguments: str, folder: str | Path | None = None, seconds: float = 800,
            **environment: str) -> str:
    """Run a command of this environment, in a folder, and return what it printed.

    Fails if its exit code is not 0.
    """
    program = Path(sys.executable).with_name(name)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run([str(program), *arguments], cwd=folder, env={
        **os.environ, **offline, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=seconds)
    print(done.stdout, file=sys.stderr)
    if done.returncode:
        fail(f"{name} ended with {done.returncode}: {done.stdout.strip()[-300:]}")
    return done.stdout
