"""Texts have the form that is asked for, on any tokenizer, at temperature 1, in a batch and alone.
"""

import json
import re

import jsonschema_rs
import pytest
from json_schemas import SCHEMAS, closed

import models
from core.errors import OptionError
from models import SamplingParams, StructuredOutputsParams
from models.serving.grammar.token_bytes import token_bytes

TEXT, COMPACT = "Once upon a time", {"disable_any_whitespace": True}
OTHERS = {
    "regex": ({"regex": r"(\d{2}/[a-f]|ä\nö){2,3}"}, lambda t: re.fullmatch(
        r"(\d{2}/[a-f]|ä\nö){2,3}", t)),
    "slashes": ({"regex": "a/b\\/[/]\\\\"}, lambda t: t == "a/b//\\"),
    "choice": ({"choice": ["a", "ab", ' "x"', "ü\n\\"]}, 
               lambda t: t in ("a", "ab", ' "x"', "ü\n\\")),
    "grammar": ({"grammar": 'start: "<" WORD ("," WORD){1,2} ">"\nWORD: /[a-z]{1,4}/'},
                lambda t: re.fullmatch(r"<[a-z]{1,4}(,[a-z]{1,4}){1,2}>", t))}


def sampled(seed, form, **more):
    return SamplingParams(seed=seed, max_tokens=128, structured_outputs=form, **more)


@pytest.fixture(scope="module", params=["stories-llama2", "stories-llama3"])
def engine(request):
    with models.load_engine(request.param, backend="cpu_numpy", max_context=192, max_num_seqs=48,
                            ) as engine:
        yield engine
        engine.check()
        assert engine.pool.free == engine.pool.blocks


def one(output):
    return output.outputs[0]


def test_json_schemas(engine):
    """Fill schemas in one batch, beside a request without a form; some of them again alone. The
    first model has every third one."""
    schemas = list(SCHEMAS.items())[::3 if "llama2" in engine.name else 1]
    asked = [sampled(5 + i, {"json": schema, **COMPACT}) for i, (_, schema) in enumerate(schemas)]
    free = SamplingParams(seed=3, max_tokens=24)
    outputs = engine.generate([TEXT] * (len(asked) + 1), [*asked, free])
    for (name, schema), output in zip(schemas, outputs, strict=False):
        assert one(output).finish_reason == "stop", (name, one(output).text)
        value = json.loads(one(output).text)
        assert jsonschema_rs.is_valid(schema, value, validate_formats=True), (name, value)
    assert len(SCHEMAS) >= 30 and len({one(o).text for o in outputs}) > len(schemas) * 2 / 3
    for i in (*range(2, len(asked), 9), -1):
        (alone,) = engine.generate([TEXT], [*asked, free][i])
        assert one(alone).token_ids == one(outputs[i]).token_ids
        assert one(alone).text == one(outputs[i]).text


def test_other_forms(engine):
    outputs = engine.generate([TEXT] * 2 * len(OTHERS), [
        sampled(seed, form) for form, _ in OTHERS.values() for seed in (0, 1)])
    for i, output in enumerate(outputs):
        name, (_, fits) = list(OTHERS.items())[i // 2]
        assert fits(one(output).text) and one(output).finish_reason == "stop", (
            name, one(output).text)


def test_the_bytes_of_tokens_are_their_text(engine):
    """Decode each token after another: that is what a text is made of."""
    tokenizer, whole = engine.tokenizer, 0
    found, special = token_bytes(tokenizer, engine.vocab_size)
    (a,) = tokenizer.encode("a", special=True)[-1:]
    assert special == sorted(tokenizer.special_tokens.values())
    for i, data in enumerate(found):
        text = tokenizer.decode([a, i])
        if "�" not in text and i not in special:
            assert text == tokenizer.decode([a]) + data.decode(), i
            whole += 1
    assert whole > 300 and len(found) == engine.vocab_size


def test_spaces_between_tokens_of_json(engine):
    """Without `disable_any_whitespace` a space, or a new line and its indent."""
    forms = [{"json_object": True}, {"json": {"type": "array", "maxItems": 1, "minItems": 1,
                                              "items": {"type": "boolean"}}}]
    objects, lists = engine.generate([TEXT] * 2, [SamplingParams(
        seed=i, max_tokens=30, structured_outputs=form, logit_bias=dict.fromkeys(
            [i for i, data in enumerate(token_bytes(engine.tokenizer, engine.vocab_size)[0])
             if data and not data.strip()], 100)) for i, form in enumerate(forms)])
    assert re.match(r"\{( |\n[ \t]*)", one(objects).text)
    assert re.fullmatch(r"\[\s{1,26}(true|false)\s{1,26}\]", one(lists).text) or (
        one(lists).finish_reason == "length")


def test_a_list_of_prompts_of_a_model():
    with models.load("stories-qwen2", max_context=64) as model:
        how = {"max_new_tokens": 30, "temperature": 1.0, "seed": 4}
        form = StructuredOutputsParams(json=closed(a={"type": "boolean"}), **COMPACT)
        (found,) = model.generate([TEXT], structured_outputs=form, **how)
        assert type(json.loads(one(found).text)["a"]) is bool
        (found,) = model.generate([TEXT], structured_outputs={"choice": ["x"]}, **how)
        assert one(found).text == "x"
        with pytest.raises(OptionError, match="goes with a list of prompts"):
            model.generate(TEXT, structured_outputs=form)
