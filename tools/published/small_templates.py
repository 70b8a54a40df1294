"""Render small templates, each of a filter, a tag, a function or a fault, here and in transformers.

    python tools/published/small_templates.py

Prints those that differ, and how many are equal: the same text, or refused by both. Needs the extra
`parity`. Exit code 1 where any differs.
"""

from __future__ import annotations

import sys
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from core.errors import TokenizerError
from models.tokenizers.chat_template import ChatTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "S é <b> & \" '"}, {"role": "user", "content": "Hi\n\t<x>"},
    {"role": "assistant", "content": "A", "tool_calls": [{"type": "function", "function": {
        "name": "f", "arguments": {"a": 1, "b": [1.5, None, True, "ü"]}}}]},
    {"role": "tool", "content": "r"}]
MORE: dict[str, Any] = {
    "tools": [{"type": "function", "function": {
        "name": "f", "description": "d ü", "parameters": {"type": "object", "properties": {
            "z": {"type": "string"}, "a": {"type": "integer"}}}}}],
    "documents": [{"title": "t", "text": "x"}], "custom": "c", "add_generation_prompt": True}
TEMPLATES = [
    "{{ messages|tojson }}", "{{ messages|tojson(indent=2) }}",
    "{{ tools|tojson(indent=4, sort_keys=true) }}", "{{ messages|tojson(ensure_ascii=True) }}",
    "{{ messages|tojson(separators=(',',':')) }}",
    "{{ {'b':1,'a':[1]}|tojson(sort_keys=True, indent=1) }}",
    "{{ tools[0].function.parameters.properties|dictsort }}", "{{ documents|tojson }}",
    "{{ documents|map(attribute='title')|join(',') }}",
    "{% for m in messages %}{% if loop.index0==1 %}{% continue %}{% endif %}"
    "{% if loop.last %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}",
    "{{ raise_exception('no ü') }}", "{{ strftime_now('%d %b %Y') }}", "{{ strftime_now('%A') }}",
    "  {% if true %}\n   x\n  {% endif %}\ny\n", "{%- if true -%}\n x\n{%- endif +%}\n y",
    "{{ messages[9].role }}", "{{ nope }}", "{{ nope.x }}", "{{ messages[0].content|e }}",
    "{{ messages[0].content|escape }}", "{{ messages|length }}{{ messages[-1].role }}",
    "{% set ns=namespace(a=1) %}{% for m in messages %}{% set ns.a=ns.a+1 %}{% endfor %}"
    "{{ ns.a }}",
    "{% macro f(a,b=2) %}{{ a }}{{ b }}{{ caller is defined }}{% endmacro %}"
    "{{ f(1) }}{{ f(1,b=3) }}",
    "{% call(x) f() %}{{ x }}{% endcall %}",
    "{% macro f() %}{{ caller(3) }}{% endmacro %}{% call(x) f() %}<{{ x }}>{% endcall %}",
    "{{ messages|selectattr('role','equalto','user')|list|length }}",
    "{{ messages|groupby('role') }}",
    "{{ 'abc'.startswith('a') }}{{ 'a,b'.split(',') }}{{ 'x'.strip() }}{{ ' x'.lstrip() }}",
    "{{ messages[0].items()|list }}", "{{ messages[0].get('x','d') }}", "{{ messages.append(1) }}",
    "{% set x=[] %}{{ x.append(1) }}{{ x }}", "{{ {}.update({'a':1}) }}",
    "{% do messages.append(1) %}", "{{ ''.__class__ }}", "{{ ''.__class__.__mro__ }}",
    "{{ messages.__len__() }}", "{{ range(3)|list }}", "{{ range(10**7)|list|length }}",
    "{{ cycler('a','b').next() }}", "{{ joiner('|')() }}", "{{ dict(a=1) }}", "{{ 1/0 }}",
    "{{ 'a' ~ 1 ~ none }}", "{{ 'a' + 1 }}", "{{ messages[0]['content'][2:4] }}",
    "{{ messages[1:]|map(attribute='role')|list }}",
    "{{ [1,2]|sum }}{{ [3,1]|sort }}{{ [1,1]|unique|list }}",
    "{{ 'x'|default('y') }}{{ nope|default('y') }}{{ ''|default('y',true) }}",
    "{{ 'ü'|upper }}{{ 'A b'|title }}{{ 'ab'|capitalize }}", "{{ '%s-%d'|format('a',3) }}",
    "{{ 'a\nb'|indent(2,true) }}", "{{ 'a b c'|wordwrap(2) }}",
    "{{ 1.0 }} {{ 1e20 }} {{ 3//2 }} {{ 2**10 }}", "{{ true }} {{ none }} {{ [none,true,1.5] }}",
    "{{ {'a':none}|tojson }}{{ 1.0|tojson }}{{ 'a/b'|tojson }}", "{{ nope|tojson }}",
    "{{ messages is iterable }}{{ messages is mapping }}{{ 'a' is string }}{{ 1 is number }}",
    "{{ add_generation_prompt }}{{ tools is defined }}{{ documents is none }}",
    "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}", "{% include 'x' %}",
    "{% import 'x' as y %}", "{% extends 'x' %}", "{% raw %}{{ x }}{% endraw %}", "{# c #}a",
    "{% set x %}block{{ 1 }}{% endset %}{{ x }}", "{% filter upper %}ab{% endfilter %}",
    "{% with a=1 %}{{ a }}{% endwith %}", "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{% trans %}x{% endtrans %}", "{% debug %}", "{{ self }}", "{{ messages|pprint }}",
    "{{ messages|random is defined }}", "{{ 'x'|xmlattr }}", "{{ {'a':1}|xmlattr }}",
    "{{ 'http://a.b'|urlize }}", "{{ '<a>x</a>'|striptags }}",
    "{{ messages|batch(2)|list|length }}", "{{ 'a'|center(5) }}|", "{{ 3|filesizeformat }}",
    "{{ 'abc'|truncate(2) }}", "{{ 'abc'|list }}", "{{ 'abc'|reverse }}", "{{ '12'|int + 1 }}",
    "{{ 'x'|int }}", "{{ 'a' in 'abc' }}",
    "{% for k,v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for m in messages recursive %}{{ loop.depth }}{% endfor %}",
    "{% for m in [] %}{% else %}none{% endfor %}", "{{ loop }}",
    "{{ messages[2].tool_calls[0].function.arguments|tojson }}",
    "{{ messages[2].tool_calls[0].function.arguments|items|list }}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem else '' }}"
    "{{ loop.changed(m.role) }}{% endfor %}",
    "{{ '{}'.format(3) }}{{ '{0.__class__}'.format(3) }}", "{{ 'a'|tojson|safe }}",
    "{{ '<'|safe }}{{ '<'|forceescape }}", "\ufeffx", "x\r\ny\r\n", "{{ 'x\\ny' }}",
    "{{ enable_thinking }}{{ custom }}", "{% if not add_generation_prompt %}", "{% generation %}a",
    "{{ messages|tojson(indent=none) }}", "{{ messages|tojson(2) }}",
    "{{ messages|tojson(bad=1) }}", "{{ strftime_now('') }}", "{{ strftime_now(3) }}",
    "{{ raise_exception() }}", "{{ raise_exception('a','b') }}", "{{ tools[0]|string }}",
    "{{ messages[0]|string|length }}", "{{ 5|round(1) }}{{ 2.567|round(1,'floor') }}",
    "{{ 'é'|urlencode }}", "{{ [[1,2],[3]]|sum(start=[]) }}", "{{ messages|map('upper')|list }}",
    "{{ messages|rejectattr('role','in',['user'])|map(attribute='role')|list }}",
    "{{ ['a','b']|join(d='-') }}", "{{ 1 if false }}", "{{ namespace() }}",
    "{% set a, b = 1, 2 %}{{ a+b }}",
]


def ours(source: str) -> str | None:
    """Return the text, or None for a refusal."""
    try:
        return ChatTemplate({"default": source}, TOKENS).render(MESSAGES, **MORE)
    except TokenizerError:
        return None


def theirs(source: str) -> str | None:
    """Return transformers' text, or None for an error of any kind."""
    try:
        return str(render_jinja_template([MESSAGES], chat_template=source, **MORE, **TOKENS)[0][0])
    except Exception:
        return None


def main() -> int:
    """Print the differences."""
    found = [(source, ours(source), theirs(source)) for source in TEMPLATES]
    for source, a, b in found:
        if a != b:
            print(f"{source!r}\n  here          {a!r}\n  transformers  {b!r}")
    equal = sum(a == b for _, a, b in found)
    refused = sum(a is None for _, a, _ in found)
    print(f"{equal} of {len(found)} are equal, {refused} of them refused.")
    return int(equal < len(found))


if __name__ == "__main__":
    sys.exit(main())
