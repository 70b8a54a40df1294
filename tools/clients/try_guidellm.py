"""Tries guidellm: it completes as many requests as it was told to send, and none in error."""

import json
import tempfile
from pathlib import Path

from common import command, equal, target

REQUESTS = 32
t = target()
before = t.metric("request_success_total")
with tempfile.TemporaryDirectory() as folder:
    command("guidellm", "run", "--backend", f"kind=openai_http,target={t.url},model={t.model},"
            f"api_key={t.key}", "--profile", "kind=concurrent,streams=4", "--constraint",
            f"kind=max_requests,count={REQUESTS}", "--tokenizer",
            f"kind=huggingface_auto,model={t.folder}", "--data",
            "kind=synthetic_text,prompt_tokens=32,output_tokens=16", "--output",
            f"kind=json,path={folder}/run.json", "--disable-console")
    (file,) = Path(folder).rglob("*.json")
    (run,) = json.loads(file.read_text())["benchmarks"]
totals = run["metrics"]["request_totals"]
equal("requests", {k: totals[k] for k in ("successful", "errored", "incomplete")},
      {"successful": REQUESTS, "errored": 0, "incomplete": 0})
t.finished(before, REQUESTS)
print(f"{REQUESTS} requests, 4 at once: all successful, none in error")
