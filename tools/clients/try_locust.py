"""Tries locust: users stream chats; every one has all its tokens and its end."""

import csv
import tempfile
from pathlib import Path

from common import command, equal, target

USERS, REQUESTS = 8, 64
t = target()
before = t.metric("request_success_total")
with tempfile.TemporaryDirectory() as folder:
    command("locust", "--locustfile", str(Path(__file__).with_name("locustfile.py")), "--headless",
            "--users", str(USERS), "--spawn-rate", str(USERS), "--host", t.url, "--csv",
            f"{folder}/run", "--run-time", "120s", "--key", t.key, "--served-model", t.model,
            "--requests", str(REQUESTS))
    rows = list(csv.DictReader((Path(folder) / "run_stats.csv").open()))
(row,) = [row for row in rows if row["Name"] == "chat"]
equal("requests", int(row["Request Count"]), REQUESTS)
equal("failures", int(row["Failure Count"]), 0)
t.finished(before, REQUESTS)
print(f"{REQUESTS} streamed chats by {USERS} users, each with its usage and `[DONE]`: "
      "no failure")
