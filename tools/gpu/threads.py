"""Lets threads share one model, and forks after it has run: what docs/security.md promises.

    python tools/gpu/threads.py cuda_cupy cuda_pycuda cpu_numba,cpu_numpy [--page docs/security.md]

Each row is CALLS calls for the logits of a prompt and CALLS seeded texts, by all threads together.
A call is wrong where one bit of its logits, or a character of its text, is not that of the same
call alone, and where it raises. A forked child then asks for a text: it gets the same one, or our
error that names `spawn`, and ends as programs do, with all finalizers. The table goes to standard
output, and its rows into the page's, which keeps those of other backends; the exit code is 1 where
a call was wrong, or a child did anything else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

import models
from core.errors import BackendError

sys.path.append(str(Path(__file__).parents[2] / "tests/support"))
from pages import page_with_rows

CALLS, THREADS, PATIENCE_S = 200, (2, 3, 8), 60
KINDS = 5  # of errors printed a row, each in a line
PROMPTS = ["Once upon a time", "One day a fox", "The cat and the dog", "There was a little"]
CHILDREN = ("the same text", "an error that names spawn")
BEGIN = "<!-- table of threads: python tools/gpu/threads.py --page -->\n"
HEAD = ("| backends | threads | wrong logits | wrong texts | a forked child |\n"
        "|---|---|---|---|---|\n")


def text_of(model: models.Model, ids: list[int], seed: int) -> str:
    return model.generate(ids, max_new_tokens=12, temperature=0.9, seed=seed).run().text


def wrong_calls(model: models.Model, threads: int) -> tuple[Counter[str], Counter[str]]:
    """Count what differs from the same call alone, and what calls raise, by its text: such a call
    is wrong too."""
    prompts = [model.encode(p) for p in PROMPTS]
    logits = [model.logits(ids) for ids in prompts]
    texts = [text_of(model, ids, n) for n, ids in enumerate(prompts)]
    start, lock = threading.Barrier(threads), threading.Lock()
    wrong, raised = Counter[str](), Counter[str]()

    def work(first: int) -> None:
        start.wait()
        for call in range(first, CALLS, threads):
            n = call % len(prompts)
            for what, right in (
                    ("logits", lambda n=n: np.array_equal(model.logits(prompts[n]), logits[n])),
                    ("texts", lambda n=n: text_of(model, prompts[n], n) == texts[n])):
                try:
                    fault, said = not right(), ""
                except BaseException as error:
                    fault, said = True, f"{type(error).__name__}: {error}"
                with lock:
                    wrong[what] += fault
                    raised[said] += bool(said)
    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong, +raised


def forked(model: models.Model) -> str:
    """Return how a child that uses its parent's model ends."""
    ids = model.encode(PROMPTS[0])
    expected = text_of(model, ids, 0)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of a fork with threads
        child = os.fork()
    if not child:
        try:
            said = "the same text" if text_of(model, ids, 0) == expected else "another text"
        except BackendError as error:
            said = "an error that names spawn" if "spawn" in str(error) else str(error)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode()[:2000])
        sys.exit()
    os.close(writing)
    deadline = time.monotonic() + PATIENCE_S
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return f"no answer in {PATIENCE_S} s"
        time.sleep(0.01)
    with os.fdopen(reading) as pipe:
        said = pipe.read() or "ended without a word"
    if code := os.waitstatus_to_exitcode(ended[1]):
        said += f"; exit code {code}"
    return said if text_of(model, ids, 0) == expected else f"{said}; its parent is broken"


def row(model: models.Model, backends: str, threads: int) -> tuple[str, bool]:
    """Return a line of the table, and whether all of it is as promised. The kinds of errors go to
    standard error, each once."""
    try:
        (wrong, raised), child = wrong_calls(model, threads), forked(model)
    except Exception as error:  # of a call alone: the next row is tried all the same
        wrong, child = Counter(logits=CALLS, texts=CALLS), "not tried"
        raised = Counter({f"{type(error).__name__}: {error}": 1})
    for said, times in raised.most_common(KINDS):
        print(f"{backends}, {threads} threads, {times} times: {said[:300]}", file=sys.stderr)
    if len(raised) > KINDS:
        print(f"{backends}, {threads} threads: {len(raised) - KINDS} more kinds", file=sys.stderr)
    line = (f"| {backends} | {threads} | {wrong['logits']} of {CALLS} | "
            f"{wrong['texts']} of {CALLS} | {child} |\n")
    return line, not wrong.total() and child in CHILDREN


def main() -> int:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("backends", nargs="+", metavar="BACKEND[,BACKEND]")
    p.add_argument("--model", default="stories-llama2")
    p.add_argument("--page", type=Path, help="put the rows into the table of this page")
    args = p.parse_args()
    table, failed = HEAD, False
    print(HEAD, end="", flush=True)  # a child would print what is not flushed
    for backends in args.backends:
        with models.load(args.model, backend=backends) as model:
            for threads in THREADS:
                line, right = row(model, backends, threads)
                print(line, end="", flush=True)
                table, failed = table + line, failed or not right
    if args.page:
        args.page.write_text(page_with_rows(args.page.read_text(), BEGIN, table))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
