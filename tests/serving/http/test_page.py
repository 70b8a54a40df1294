"""Tests the chat page in a browser, by keyboard and by names that a screen reader says."""

import json
import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as run:
        found = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, server):
    """Return the page on a small screen, in the dark; it must ask nobody else for anything."""
    context = browser.new_context(viewport={"width": 360, "height": 640}, color_scheme="dark")
    found, asked, errors = context.new_page(), [], []
    found.on("request", lambda request: asked.append(request.url))
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.goto(server.url)
    yield found
    assert errors == []
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []
    context.close()


def answered(page) -> str:
    """Wait for the end of an answer, and return its text."""
    page.wait_for_function("document.getElementById('status').textContent.includes('tokens')",
                           timeout=60_000)
    return page.locator(".assistant p").last.text_content()


def test_a_conversation(page):
    page.get_by_role("heading", name="stories-llama2").wait_for()
    page.get_by_text("Settings").click()
    page.get_by_label("Most tokens").fill("12")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("System prompt").fill("Once upon")
    message = page.get_by_label("Message")
    message.fill("a time")
    message.press("Enter")
    first = answered(page)
    assert first and "tokens/s" in page.get_by_role("status").text_content()
    page.get_by_role("button", name="Regenerate").click()
    page.wait_for_function("document.querySelectorAll('.assistant').length === 1")
    assert answered(page) == first, "the same conversation, greedily"
    message.fill("<b>and then</b>")
    message.press("Enter")
    page.wait_for_function("document.querySelectorAll('.assistant').length === 2")
    answered(page)
    assert page.locator(".user p").last.text_content() == "<b>and then</b>", "text, no markup"
    page.get_by_role("button", name="New chat").click()
    assert page.locator("article").count() == 0


def test_stop_ends_the_request(page, server):
    page.get_by_text("Settings").click()
    page.get_by_label("Temperature").fill("1.5")
    message = page.get_by_label("Message")
    page.route("**/v1/chat/completions", lambda route: route.continue_(
        post_data=route.request.post_data.replace('"stream":true', '"stream":true,"n":16,'
                                                  '"ignore_eos":true')))
    message.fill("One day")
    message.press("Enter")
    page.wait_for_function("document.querySelector('.assistant p')?.textContent.length > 0")
    page.keyboard.press("Escape")
    page.wait_for_function("document.getElementById('status').textContent === 'Stopped'")
    assert page.get_by_role("button", name="Send").is_enabled()
    server.idle()


MARKUP = "# <img src=x onerror=alert(1)> **bold** [link](javascript:alert(1))\n```\n&lt;b&gt;\n```"


def stream(*texts: str, end: str = "data: [DONE]\n\n") -> dict:
    """Return an answer of the server that streams texts."""
    chunks = [{"choices": [{"text": text}]} for text in texts]
    usage = {"choices": [], "usage": {"completion_tokens": len(texts)}}
    return {"content_type": "text/event-stream",
            "body": "".join(f"data: {json.dumps(c)}\n\n" for c in [*chunks, usage]) + end}


def test_what_a_model_writes_is_text_however_long(page):
    words = [f"word {i} " * 20 + "\n" for i in range(400)]
    page.route("**/completions", lambda route: route.fulfill(**stream(MARKUP, *words)))
    page.get_by_label("Message").fill("go")
    page.keyboard.press("Enter")
    assert answered(page) == MARKUP + "".join(words)
    assert page.locator("#log img, #log a, #log b, #log code").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.get_by_role("button", name="Send").is_visible(), "the form stays in view"
    assert page.evaluate("at('log').scrollHeight - at('log').scrollTop - at('log').clientHeight"
                         ) < 48, "the end is in view"


@pytest.mark.parametrize(("answer", "said"), [
    ({"status": 429, "json": {"error": {"message": "64 requests wait already"}}}, "64 requests"),
    ({"status": 502, "body": "<b>proxy</b>"}, "status 502"),
    (stream("a", end='event: error\ndata: {"error": {"message": "a kernel failed"}}\n\n'),
     "a kernel failed"),
    (stream("a", end=""), "the server ended the answer early")], ids=["429", "502", "error", "end"])
def test_failures_are_told_and_may_be_tried_again(page, answer, said):
    page.route("**/completions", lambda route: route.fulfill(**answer))
    page.get_by_label("Message").fill("go")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('status').textContent.includes('Failed')")
    assert said in page.get_by_role("status").text_content()
    assert page.locator(".failed").count() == 1
    page.unroute("**/completions")
    page.get_by_role("button", name="Regenerate").click()
    answered(page)
    assert page.locator(".failed").count() == 0 and page.locator("article").count() == 2


def test_every_control_is_reached_by_tab_and_shows_it(page):
    page.get_by_text("Settings").press("Enter")
    page.get_by_text("Settings").focus()
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert reached == ["system", "temperature", "top_p", "max_tokens", "seed", "key", "log",
                       "text", "send"]


def test_it_fits_a_phone_and_the_dark(page):
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360, "nothing needs scrolling to the side"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, background.strip("rgb()").split(","))) < 60
    names = page.evaluate("""[...document.querySelectorAll('input, textarea, button')].filter(
        (e) => !(e.labels?.length || e.textContent.trim())).length""")
    assert names == 0, "each control has a name"
