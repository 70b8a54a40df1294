"""Asks a server for texts of a form, and its endpoints for anything: two tables of Markdown.

    python tools/serving/structured.py [--model NAME] [--examples 200] [--rows forms,steps,s3]

forms  EXAMPLES requests over HTTP at temperature 1, each with one of the schemas of the tests and a
       seed of its own, many at once; jsonschema-rs holds each whole answer to its schema
steps  milliseconds of a decode step of 1 and 32 sequences, without a form and with one: CPU time of
       the engine's thread. The order of the two changes with each of ROUNDS rounds, and the median
       counts. OPENBLAS_NUM_THREADS=1 lets NumPy compute in that thread
s3     schemathesis with EXAMPLES examples an endpoint: no answer of 500 or more

Exit code 1: an answer does not fit, or the server failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import openai

import models
from models import SamplingParams

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from http_server import Server, serving
from json_schemas import SCHEMAS, closed

PROMPT, AT_ONCE, TOKENS, ROUNDS = "Once upon a time", 16, 160, 7
#: never complete before TOKENS: all rows stay in the batch
LONG = closed(text={"type": "string", "minLength": 2000}, age={"type": "integer"})


async def _ask(server: Server, model: str, examples: int) -> list[tuple[str, str, str]]:
    """Return the name of the schema, the end, and the text of each answer."""
    places = asyncio.Semaphore(AT_ONCE)
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", timeout=300) as http:
        async def one(i: int) -> tuple[str, str, str]:
            name = list(SCHEMAS)[i % len(SCHEMAS)]
            async with places:
                answer = await http.completions.create(
                    model=model, prompt=PROMPT, seed=i, temperature=1, max_tokens=TOKENS,
                    extra_body={"response_format": {"type": "json_schema", "json_schema": {
                        "name": "answer", "schema": SCHEMAS[name]}}})
            return name, str(answer.choices[0].finish_reason), answer.choices[0].text
        return await asyncio.gather(*map(one, range(examples)))


def fits(name: str, text: str) -> bool:
    """Tell whether a text is JSON that its schema allows."""
    try:
        return bool(jsonschema_rs.is_valid(SCHEMAS[name], json.loads(text),
                                           validate_formats=True))
    except ValueError:
        return False


def forms(server: Server, model: str, examples: int) -> Iterator[str]:
    """Yield the table of what schemas gave; raises AssertionError for an answer that is wrong."""
    answers = asyncio.run(_ask(server, model, examples))
    ends = Counter(end for _, end, _ in answers)
    wrong = [(name, text) for name, end, text in answers if end == "stop" and not fits(name, text)]
    yield f"| model | schemas | answers | complete (`stop`) | of these valid | cut at {TOKENS} " \
        "tokens (`length`) |\n|---|---|---|---|---|---|"
    yield f"| {model} | {len(SCHEMAS)} | {len(answers)} | {ends['stop']} | " \
        f"{ends['stop'] - len(wrong)} | {ends['length']} |"
    assert not wrong and sum(ends.values()) == ends["stop"] + ends["length"], wrong[:3]


def step_ms(engine: models.Engine, sequences: int, form: dict[str, object] | None) -> float:
    """Return the median CPU time of a decode step, in milliseconds."""
    params = SamplingParams(max_tokens=64, seed=1, structured_outputs=form)
    for i in range(sequences):
        engine.add_request(str(i), PROMPT, params, streams=False)
    times = []
    while engine.has_unfinished_requests:
        start = time.thread_time()
        engine.step()
        times.append(time.thread_time() - start)
    return statistics.median(times[2:-2]) * 1e3


def steps(model: str) -> Iterator[str]:
    """Yield the table of what a form costs a step."""
    yield "| model | sequences | ms a step | with a form |\n|---|---|---|---|"
    kinds = {"plain": None, "form": {"json": LONG}}
    with models.load_engine(model, max_num_seqs=32, max_context=128) as engine:
        for sequences in (1, 32):
            found: dict[str, list[float]] = {name: [] for name in kinds}
            for i in range(ROUNDS + 1):
                for name in list(kinds)[::1 if i % 2 else -1]:
                    found[name].append(step_ms(engine, sequences, kinds[name]))
            plain, form = (statistics.median(found[name][1:]) for name in kinds)
            yield f"| {model} | {sequences} | {plain:.2f} | {form:.2f} |"


def s3(server: Server, examples: int) -> Iterator[str]:
    """Yield the table of schemathesis' examples; raises AssertionError where the server failed."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json",
             "--max-examples", str(examples), "--phases", "fuzzing,examples", "--checks",
             "not_a_server_error", "--seed", "1", "--no-color", "--request-timeout", "300"],
            capture_output=True, text=True, cwd=folder)  # it keeps what it has found
    endpoints, cases = (re.findall(pattern, done.stdout) for pattern in (
        r"Tested: (\d+)", r"(\d+) generated"))
    yield "| endpoints | requests | answers of 500 or more |\n|---|---|---|"
    yield f"| {''.join(endpoints)} | {''.join(cases)} | {'some' if done.returncode else 'none'} |"
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="stories-llama2")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--rows", default="forms,steps,s3")
    args = parser.parse_args()
    rows = args.rows.split(",")
    try:
        if "steps" in rows:
            print(*steps(args.model), sep="\n", end="\n\n")
        if set(rows) & {"forms", "s3"}:
            with tempfile.TemporaryDirectory() as folder, serving(
                    Path(folder), "--max-num-seqs", str(AT_ONCE), model=args.model) as server:
                for name, table in (("forms", lambda: forms(server, args.model, args.examples)),
                                    ("s3", lambda: s3(server, args.examples))):
                    if name in rows:
                        print(*table(), sep="\n", end="\n\n")
    except AssertionError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
