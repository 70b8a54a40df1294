"""Tries aiperf: it counts as many streamed chats as it was told to send, and no error."""

import json
import tempfile
from pathlib import Path

from common import command, equal, target

REQUESTS, TOKENS = 48, 32
t = target()
before = t.metric("request_success_total")
with tempfile.TemporaryDirectory() as folder:
    command("aiperf", "profile", "--model", t.model, "--url", t.url, "--endpoint-type", "chat",
            "--streaming", "--api-key", t.key, "--tokenizer", t.folder, "--concurrency", "8",
            "--request-count", str(REQUESTS), "--synthetic-input-tokens-mean", "64",
            "--output-tokens-mean", str(TOKENS), "--extra-inputs", "ignore_eos:true",
            "--artifact-dir", folder, "--ui", "none", HF_HUB_OFFLINE="", TRANSFORMERS_OFFLINE="")
    # told to be offline, it takes the tokenizer's folder for a name of the hub
    (file,) = Path(folder).rglob("profile_export_aiperf.json")
    found = json.loads(file.read_text())
equal("requests", int(found["request_count"]["avg"]), REQUESTS)
errors = (found.get("error_request_count") or {"avg": 0})["avg"]
equal("errors", (errors, found.get("error_summary") or []), (0, []))
t.finished(before, REQUESTS)
print(f"{REQUESTS} streamed chats of {TOKENS} tokens, 8 at once: all counted, no error")
