"""Defines the users of try_locust.py."""

import itertools
import json
from argparse import ArgumentParser

from locust import HttpUser, constant, events, task
from locust.exception import StopUser

TOKENS = 32
asked = itertools.count(1)
ended = itertools.count(1)


@events.init_command_line_parser.add_listener
def options(parser: ArgumentParser) -> None:
    parser.add_argument("--key")
    parser.add_argument("--served-model")
    parser.add_argument("--requests", type=int)


class Chat(HttpUser):
    """Streams chats until all users together have sent --requests."""

    wait_time = constant(0)

    @task
    def stream(self) -> None:
        given = self.environment.parsed_options
        if next(asked) > given.requests:
            raise StopUser
        body = {"model": given.served_model, "messages": [{"role": "user", "content": "Once"}],
                "max_tokens": TOKENS, "ignore_eos": True, "stream": True,
                "stream_options": {"include_usage": True}}
        with self.client.post("/v1/chat/completions", json=body, stream=True, name="chat",
                              headers={"Authorization": f"Bearer {given.key}"},
                              catch_response=True) as answer:
            lines = [line for line in answer.iter_lines() if line]
            usage = json.loads(lines[-2].removeprefix(b"data: "))["usage"] if len(lines) > 1 else {}
            if lines[-1:] != [b"data: [DONE]"] or usage["completion_tokens"] != TOKENS:
                answer.failure(f"the stream ends with {lines[-2:]}")
            else:
                answer.success()
        if next(ended) == given.requests:
            self.environment.runner.quit()
