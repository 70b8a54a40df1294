"""Starts one server for all tests of this folder."""

import json

import httpx
import openai
import pytest
from http_server import serving


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Return the server that tests share; they must leave it idle."""
    with serving(tmp_path_factory.mktemp("server"), "--max-num-seqs", "16", "--max-queue", "64",
                 "--body-limit", "1") as found:
        yield found


@pytest.fixture
def client(server):
    """Return OpenAI's own client."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0,
                       timeout=60) as found:
        yield found


@pytest.fixture
def post(server):
    """Return post(path, body) -> (status, JSON)."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        def send(path: str, body: object):
            answer = http.post(path, content=json.dumps(body),  # escapes what UTF-8 lacks
                               headers={"content-type": "application/json"})
            return answer.status_code, answer.json()
        yield send
