"""Tries `vllm bench serve`: it completes as many requests as it was told to send."""

import json
import tempfile
from pathlib import Path

from common import command, equal, target

REQUESTS, TOKENS = 48, 32
t = target()
before = t.metric("request_success_total")
with tempfile.TemporaryDirectory() as folder:
    command("vllm", "bench", "serve", "--backend", "openai", "--base-url", t.url, "--endpoint",
            "/v1/completions", "--model", t.model, "--tokenizer", t.folder, "--dataset-name",
            "random", "--random-input-len", "64", "--random-output-len", str(TOKENS),
            "--num-prompts", str(REQUESTS), "--max-concurrency", "8", "--ignore-eos",
            "--save-result", "--result-dir", folder, OPENAI_API_KEY=t.key)
    (file,) = Path(folder).glob("*.json")
    found = json.loads(file.read_text())
equal("requests, failures, tokens", (found["completed"], found["failed"],
                                     found["total_output_tokens"]),
      (REQUESTS, 0, REQUESTS * TOKENS))
t.finished(before, REQUESTS)
print(f"{REQUESTS} streamed completions of {TOKENS} tokens, 8 at once: all completed, none failed")
