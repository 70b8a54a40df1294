"""Tries schemathesis: no request that it makes up is answered with a status of 500 or more."""

import re
import tempfile

from common import command, fail, target

EXAMPLES = 200  # of each endpoint
t = target()
with tempfile.TemporaryDirectory() as folder:  # it leaves a cache where it runs
    said = command("schemathesis", "run", f"{t.url}/openapi.json", "--max-examples", str(EXAMPLES),
                   "--phases", "fuzzing,examples", "--checks", "not_a_server_error", "--seed", "1",
                   "--no-color", "--header", f"Authorization: Bearer {t.key}", folder=folder)
cases = re.search(r"([\d,]+) generated", said)
endpoints = re.search(r"Selected: (\d+)/\1", said)
if not cases or not endpoints:
    fail(f"no summary in: {said[-300:]}")
print(f"{cases[1]} requests to {endpoints[1]} endpoints, at most {EXAMPLES} examples each: no "
      "status of 500 or more")
