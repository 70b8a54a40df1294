"""Tries `vllm bench serve`: it completes as many requests as it was told to send."""

import json
import tempfile
from pathlib import Path

from common import command, equal, target

REQUESTS, TOKENS = 48, 32
t = target()
done = []
for backend, endpoint in (("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")):
    before = t.metric("request_success_total")
    with tempfile.TemporaryDirectory() as folder:
        command("vllm", "bench", "serve", "--backend", backend, "--base-url", t.url, "--endpoint",
                endpoint, "--model", t.model, "--tokenizer", t.folder, "--dataset-name", "random",
                "--random-input-len", "64", "--random-output-len", str(TOKENS), "--num-prompts",
                str(REQUESTS), "--max-concurrency", "8", "--ignore-eos", "--save-result",
                "--result-dir", folder, OPENAI_API_KEY=t.key)
        (file,) = Path(folder).glob("*.json")
        found = json.loads(file.read_text())
    equal(f"{backend}: requests, tokens", (found["completed"], found["failed"],
                                           found["total_output_tokens"]),
          (REQUESTS, 0, REQUESTS * TOKENS))
    done.append(f"{REQUESTS} of `--backend {backend}`")
print(f"{' and '.join(done)}, {TOKENS} tokens each: all completed, none failed")
