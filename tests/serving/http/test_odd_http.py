"""Tests requests that are odd as HTTP: their methods, headers, keys of JSON and speed."""

import json
import socket
import time

import httpx
import pytest

BODY = json.dumps({"prompt": "a", "max_tokens": 2, "seed": 1}).encode()


@pytest.fixture
def raw(server):
    """Return raw(pieces) -> all that the server sends until it closes; pauses are numbers."""
    host, port = server.url.removeprefix("http://").split(":")

    def send(*pieces: bytes | float) -> bytes:
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            for piece in pieces:
                if isinstance(piece, bytes):
                    connection.sendall(piece)
                else:
                    time.sleep(piece)
            return b"".join(iter(lambda: connection.recv(65536), b""))
    return send


def head(*more: str, version: str = "1.1") -> bytes:
    """Return the head of a request for a completion."""
    return "\r\n".join((f"POST /v1/completions HTTP/{version}", "Host: x",
                        "Content-Type: application/json", *more, "", "")).encode()


@pytest.mark.parametrize("path", ["/health", "/", "/v1/models", "/metrics"])
def test_head_is_get_without_a_body(server, path):
    whole, found = httpx.get(server.url + path), httpx.head(server.url + path)
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(("method", "path", "status", "said"), [
    ("HEAD", "/v1/completions", 405, ""),
    ("GET", "/v1/completions", 405, "does not take the method GET, expected POST"),
    ("OPTIONS", "/v1/completions", 405, "the method OPTIONS, expected POST"),
    ("DELETE", "/v1/models", 405, "expected GET"),
    ("POST", "/v1/responses", 404, "the path '/v1/responses' does not exist"),
    ("GET", "/" + "a" * 9000, 404, "does not exist")])
def test_methods_and_paths_that_are_not_there(server, method, path, status, said):
    found = httpx.request(method, server.url + path)
    assert found.status_code == status and "access-control-allow-origin" not in found.headers
    if said:
        message = found.json()["error"]["message"]
        assert said in message and len(message) < 300


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded",
                                  "multipart/form-data; boundary=x"])
def test_only_json_is_read(server, kind):
    """A page of another site can send these without being asked by the browser first."""
    found = httpx.post(f"{server.url}/v1/completions", content=BODY,
                       headers={} if kind is None else {"content-type": kind})
    message = found.json()["error"]["message"]
    assert found.status_code == 400 and "expected application/json" in message
    assert ("no Content-Type" if kind is None else kind) in message


@pytest.mark.parametrize("kind", ["APPLICATION/JSON", "application/json; charset=utf-8",
                                  "application/vnd.api+json"])
def test_other_names_of_json(server, kind):
    assert httpx.post(f"{server.url}/v1/completions", content=BODY, timeout=60,
                      headers={"content-type": kind}).status_code == 200


def test_old_slow_and_kept_connections(raw):
    length = f"Content-Length: {len(BODY)}"
    texts = []
    for found in (raw(head(length, version="1.0"), BODY),
                  raw(head(length, "Connection: close"), 0.1, BODY[:5], 0.1, BODY[5:]),
                  raw(head("Transfer-Encoding: chunked", "Connection: close"),
                      b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
                  raw(head(length), BODY, head(length, "Connection: close"), BODY)):
        answers = found.split(b"HTTP/1.1 200 OK")[1:]
        texts += [json.loads(one.split(b"\r\n\r\n")[1])["choices"][0]["text"] for one in answers]
    assert len(texts) == 5 and len(set(texts)) == 1, "two answers on the kept connection"


CHUNKED = head("Transfer-Encoding: chunked")


@pytest.mark.parametrize(("begin", "part"), [
    (b"GET /", b"a"), (b"GET /health HTTP/1.1\r\nX: ", b"a"), (b"GET / HTTP/1.1\r\n", b"X: a\r\n"),
    (CHUNKED + b"5;", b"a"), (CHUNKED + b"0\r\n", b"X: a\r\n")],
    ids=["path", "header", "headers", "extension", "trailers"])
def test_what_is_beside_a_body_is_bounded(server, begin, part):
    """Without a bound 60 MiB of headers took 1 GiB of memory, from clients without a key too."""
    pieces = [begin, *[part * (1 << 18)] * 64]
    port = int(server.url.split(":")[-1])
    with socket.create_connection(("127.0.0.1", port)) as connection, \
            pytest.raises(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)


def test_small_chunks_are_a_body(raw):
    body = BODY.rjust(20_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    found = raw(head("Transfer-Encoding: chunked", "Connection: close"), chunks, b"0\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 OK")


def test_a_body_that_never_ends_computes_nothing(raw, server):
    with httpx.Client(base_url=server.url) as http:
        connection = socket.create_connection(("127.0.0.1", http.base_url.port))
        connection.sendall(head("Content-Length: 500") + BODY)
        assert http.get("/health").status_code == 200, "others are served meanwhile"
        connection.close()
    server.idle()
    assert "Traceback" not in server.said, server.said


def test_what_comes_before_a_body_is_bounded(raw):
    """Whatever parses requests; a client without a key could fill the memory else."""
    start = b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
    assert raw(start, b"a" * 60_000, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert raw(start, b"a" * 40_000, 0.1, b"a" * 40_000).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(("bias", "said"), [
    ({" 10": 1}, "' 10'"), ({"1_0": 1}, "'1_0'"), ({"\u0661": 1}, "logit_bias has the keys"),
    ({"10": 1, "010": 2}, "'010'"), ({"-1": 1}, "'-1'"), ({"10": 101}, "-100 to 100"),
    ({"10": -100.5}, "-100 to 100"), ({"511": 1, "512": 1}, "0 to 511")])
def test_keys_and_bounds_of_logit_bias(post, bias, said):
    status, answer = post("/v1/completions", {"prompt": "a", "logit_bias": bias})
    assert status == 400 and said in answer["error"]["message"]
    assert answer["error"]["param"] == "logit_bias"


@pytest.mark.parametrize(("body", "param"), [
    ({"prompt": "a", "stop_token_ids": [-1]}, "stop_token_ids"),
    ({"prompt": "a", "stop_token_ids": [10**10]}, "stop_token_ids"),
    ({"prompt": [[1, 2], []]}, "prompt"), ({"prompt": [[1], [512]]}, "prompt")])
def test_wrong_ids_name_their_field(post, body, param):
    status, answer = post("/v1/completions", body)
    assert (status, answer["error"]["param"]) == (400, param), answer
