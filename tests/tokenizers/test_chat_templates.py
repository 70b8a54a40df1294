"""Chat templates: what transformers' renderer offers, which one is used, and hostile ones."""

import json
import os
import signal
import threading
import time

import pytest

from core.errors import TokenizerError
from models.json_reader import ConfigReader
from models.tokenizers.chat import rendering
from models.tokenizers.chat_template import ChatTemplate, load_template

TALK = [{"role": "user", "content": "hi é \"<x>&"}, {"role": "assistant", "content": "yo"}]
TEMPLATES = {
    "plain": "{{ bos_token }}{% for m in messages %}\n{{ m.role }}: {{ m['content'] }}\n"
             "{% endfor %}",
    "generation": "{% set ns = namespace(n=0) %}{% for m in messages %}{% generation %}"
                  "{{ m.content }}{% set ns.n = ns.n + 1 %}{% endgeneration %}{% endfor %}"
                  "{{ ns.n }}",
    "break and continue": "{% for m in messages %}{% if m.role == 'user' %}{% continue %}"
                          "{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "tojson": "{{ messages | tojson }}{{ messages | tojson(ensure_ascii=True, indent=2, "
              "separators=(',', ':'), sort_keys=True) }}{{ messages|tojson(indent=4) }}",
    "tools": "{% for t in tools %}{{ t | tojson }}{% endfor %}{{ documents[0].text }}"
             "{{ enable_thinking }}",
    "loops": "{% for m in messages recursive %}{{ loop.index }}{{ loop.last }}{% endfor %}",
    "macro": "{%- macro one(m) -%}\n  [{{ m.content | trim }}]\n{%- endmacro -%}"
             "{% for m in messages %}{{ one(m) }}{% endfor %}",
    "generation in a loop": "{% for m in messages %}{% generation %}{{ loop.index }}"
                            "{%- set x = m.content %}{{ x }} \n {% endgeneration %}{{ x }}\n"
                            "{% endfor %}",
    "fromkeys": "{{ dict.fromkeys(['a', 'b'], 1) }}{{ dict([(1, 2)]) }}",
    "namespace": "{% set n = namespace(a=1, b={'_x': 2}) %}{% set n.c = 3 %}{{ n.a }}{{ n.c }}"
                 "{{ n.b }}",
    "missing keys": "{{ messages[0].nothing }}|{{ messages[0].tool_calls is defined }}|{{ x }}",
    "dict": "{{ dict(a=1).a }}{{ range(3) | list }}{{ messages | selectattr('role', 'equalto', "
            "'user') | list | length }}{{ add_generation_prompt }}",
}
MORE = {"tools": [{"type": "function", "function": {"name": "f", "description": "é"}}],
        "documents": [{"text": "d"}], "enable_thinking": False}


def render(source, **more):
    return ChatTemplate({"default": source}, {"bos_token": "<s>"}).render(TALK, **more)


@pytest.mark.parametrize("name", TEMPLATES)
def test_like_transformers(name):
    utils = pytest.importorskip("transformers.utils.chat_template_utils",
                                reason="needs the extra: pip install '.[parity]'")
    expected = utils._compile_jinja_template(TEMPLATES[name]).render(
        messages=TALK, add_generation_prompt=True, bos_token="<s>", **MORE)
    assert render(TEMPLATES[name], **MORE) == expected


def test_values():
    assert render(TEMPLATES["generation"]) == 'hi é "<x>&yo2'
    assert render("{{ {'b': 'é<', 'a': 1} | tojson }}") == '{"b": "é<", "a": 1}'
    assert render("{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true, "
                  "separators=(',', ':')) }}") == '{"a":1,"b":"\\u00e9"}'
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")
    assert render("{{ tools is none }}{{ documents is none }}") == "TrueTrue"


HOSTILE = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}"
                    "{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "much text": "{% for i in range(99999) %}{% for j in range(999) %}aaaaaaaaaaaaaaaa"
                 "{% endfor %}{% endfor %}",
    "a long string": "{{ 'a' * 10**9 }}", "a wide one": "{{ 'a'|center(10**9) }}",
    "a format": "{{ '%1000000000d' % 1 }}", "a method": "{{ 'a'.ljust(10**9) }}",
    "growing": "{% set x = namespace(s='aa') %}{% for i in range(99) %}"
               "{% set x.s = x.s.replace('a', 'aaaaaaaaaa') %}{% endfor %}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end(name):
    start = time.perf_counter()
    with pytest.raises(TokenizerError, match=r"chat template failed: it (took|needs|writes|is)"):
        render(HOSTILE[name])
    assert time.perf_counter() - start < 20  # its own limit is 5 seconds
    assert render("{{ messages[1].content }}") == "yo"


@pytest.mark.parametrize("source,complaint", [
    ("{{ raise_exception('only one turn') }}", "only one turn"),
    ("{{ ''.__class__.__mro__ }}", "unsafe"), ("{{ x.y.z }}", "'x' is undefined"),
    ("{% if", "template"), ("{{ messages.append(1) }}", "unsafe"),
    ("{% set n = namespace(_a=1) %}", "begins with an underscore: '_a'"),
    ("{% set n = namespace() %}{% set n.__x = 1 %}", "begins with an underscore: '__x'"),
    ("{{ dict.__class__.__mro__ }}", "unsafe"),
    ("{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "")])
def test_refusals(source, complaint):
    with pytest.raises(TokenizerError, match=f"the chat template failed: .*{complaint}"):
        render(source)


def test_values_that_are_no_json():
    with pytest.raises(TokenizerError, match="JSON's types"):
        ChatTemplate({"default": ""}, {}).render([{"role": "user", "content": object()}])


def test_threads_and_a_lost_process():
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(
        (i, render("{{ n }}", n=i)))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(i, str(i)) for i in range(16)]
    os.kill(rendering._CHILD._process.pid, signal.SIGKILL)
    with pytest.raises(TokenizerError, match="ended with code -9"):
        render("a")
    assert render("a") == "a"


def test_several_templates(tmp_path):
    listed = [{"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}]

    def load(value):
        return load_template(tmp_path, ConfigReader({"chat_template": value}, "made"))
    assert load(None) is None
    with_default = load([*listed, {"name": "default", "template": "D"}])
    assert with_default.render(TALK) == "D" and with_default.render(TALK, template="rag") == "R"
    assert with_default.render(TALK, tools=[]) == "T"
    without = load(listed)
    with pytest.raises(TokenizerError, match="templates rag, tool_use, and none of them is"):
        without.render(TALK)
    assert without.render(TALK, template="rag") == "R" and without.render(TALK, tools=[]) == "T"
    assert without.only("rag").render(TALK) == "R"
    with pytest.raises(TokenizerError, match="no chat template 'x', the model has: rag, tool_use"):
        without.render(TALK, template="x")
    with pytest.raises(TokenizerError, match="made: chat_template is"):
        load([{"name": "a"}])
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    assert load(None).render(TALK) == "old"
    assert load("D").render(TALK) == "D"  # transformers reads the other for images only
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("file")
    (tmp_path / "chat_template.jinja").write_text("new")
    assert load("D").sources == {"default": "new", "rag": "file"}
