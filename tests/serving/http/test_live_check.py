"""`kernelyard serve --check`: a share of the steps is verified while the server answers."""

import os
import time

import httpx
import pytest
from http_server import serving
from zoo.table import SUPPORT, install

BODY = {"prompt": [5, 12, 19], "max_tokens": 6, "temperature": 0, "ignore_eos": True}
ATTENTION = ("attention", "zoo:attention")


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Return a server whose attention is wrong for the second of several sequences."""
    folder = tmp_path_factory.mktemp("checked")
    path = os.pathsep.join(filter(None, [str(install(folder / "site")), str(SUPPORT),
                                         os.environ.get("PYTHONPATH")]))
    with serving(folder, "--backend", "zoo,cpu_numpy", "--only-plugins", "zoo,cpu_numpy",
                 "--no-fusion", "--max-num-seqs", "4", "--check", "reference", "--check-rate", "1",
                 env={**os.environ, "PYTHONPATH": path, "ZOO": "second_sequence"}) as server:
        yield server


def ask(server, **more):
    answer = httpx.post(f"{server.url}/v1/completions", json={**BODY, **more}, timeout=60)
    return [choice["text"] for choice in answer.json()["choices"]]


def by_kernel(server, name):
    """Return a counter's values by (op, kernel), as Prometheus reads them."""
    found = {}
    for line in httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines():
        if line.startswith(f"kernelyard:{name}_total{{"):
            labels, value = line.split("{")[1].split("} ")
            pairs = dict(pair.split("=") for pair in labels.split(","))
            found[pairs["op"].strip('"'), pairs["kernel"].strip('"')] = float(value)
    return found


def settled(server, earlier=0.0):
    """Wait until the engine has told of more calls that were checked, and of no more for a while:
    it tells now and then what it has counted. Returns how many."""
    end, found, since = time.monotonic() + 60, earlier, time.monotonic()
    while found == earlier or time.monotonic() - since < 2:
        assert time.monotonic() < end, f"{found} calls were checked"
        time.sleep(0.1)
        if (now := sum(by_kernel(server, "check_calls").values())) not in (0, found):
            found, since = now, time.monotonic()
    return found


def test_right_kernels_are_counted_and_the_wrong_one_is_named(checked, story):
    """One sequence at a time shows nothing, two do."""
    expected = story.generate(BODY["prompt"], max_new_tokens=6).run().text
    assert ask(checked) == [expected]
    counted = settled(checked)
    calls = by_kernel(checked, "check_calls")
    assert calls[ATTENTION] > 5 and len(calls) > 5
    assert set(by_kernel(checked, "check_wrong").values()) == {0}
    assert "is wrong" not in checked.said
    assert len(ask(checked, n=2)) == 2
    settled(checked, counted)
    wrong = by_kernel(checked, "check_wrong")
    assert wrong.pop(ATTENTION) > 0 and set(wrong.values()) == {0}
    (line,) = [line for line in checked.said.splitlines() if "is wrong" in line]
    assert line.startswith("check: zoo:attention (attention) is wrong, compared with reference")
    health = httpx.get(f"{checked.url}/health").json()
    assert health["status"] == "ok" and health["check"]["against"] == ["reference"]
    (said,) = health["check"]["wrong"]
    assert (said["op"], said["kernel"]) == ATTENTION and said["calls"] > 0
    ledger = httpx.get(f"{checked.url}/v1/ledger").json()["check"]
    assert ledger["wrong"] == [said] and ledger["skipped"] == ledger["failed"] == 0
    assert sum(row["wrong"] for row in ledger["rows"]) == said["calls"]
