"""A logit that is NaN or infinite ends a generation with an error that says where it was."""

import json
import math
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import models
from core.errors import CheckError
from core.runtime.step import Sampling

CHAIN = "cpu_numba,cpu_numpy"
HEAD = "lm_head.weight"


@pytest.fixture(params=[np.nan, np.inf, -np.inf])
def spoilt(request, model_copy):
    """Return a model in which one token's logit is never finite."""
    folder = model_copy()
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[HEAD] = tensors[HEAD].copy()
    tensors[HEAD][300, 5] = request.param
    save_file(tensors, path)
    return folder


def ends(model, **options):
    generation = model.generate("Once upon a time", max_new_tokens=40, **options)
    with pytest.raises(CheckError, match=r"at position \d+ \(new token \d+\) is (nan|inf), "
                                         r"expected a finite number; node [\w.]+: cpu_\w+:\w+ "
                                         r"(reads|makes) (nan|-?inf) in `\w+` .*; expected finite "
                                         r"values; --check-finite .*--allow-nonfinite"):
        generation.run()
    return generation


@pytest.mark.parametrize("backend", ["cpu_numpy", CHAIN])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 1},
                                     {"repetition_penalty": 1.2}])
def test_a_generation_ends(spoilt, backend, options):
    with models.load(spoilt, backend=backend) as model:
        found = ends(model, **options)
        assert found.finish_reason == "nonfinite" and len(found.tokens) < 40
        assert found.nonfinite == len(found.prompt_ids) + len(found.tokens)
        again = model.generate("Once upon a time", max_new_tokens=40, allow_nonfinite=True,
                               **options).run()
        assert again.nonfinite == found.nonfinite and again.tokens[:len(found.tokens)] == \
            found.tokens
        assert len(again.tokens) > len(found.tokens)


def test_f16_overflow(model_copy):
    folder = model_copy()
    path = folder / "model.safetensors"
    tensors = {k: v * np.float32(600 if "down_proj" in k else 1)
               for k, v in load_file(path).items()}
    save_file(tensors, path)
    with models.load(folder, backend=CHAIN) as model:
        assert model.generate("Once", max_new_tokens=3).run().nonfinite is None
    with models.load(folder, backend=CHAIN, dtype="f16") as model:
        assert ends(model).nonfinite is not None


def test_a_good_model_has_none(story):
    assert story.generate("Once upon a time", max_new_tokens=20).run().nonfinite is None
    assert math.isfinite(story.session.logit)
    session = story.session
    with session.lock:
        session.truncate(0)
        session.sample_with(Sampling())
        rows = session.prefill([1, 2, 3], head="all")
        session.truncate(0)
        session.prefill([1, 2, 3])
        assert session.logit == pytest.approx(rows[-1].max(), rel=1e-5)


def test_a_token_outside_the_vocabulary_is_an_error(story):
    from core.runtime.step_plans import sampled_logit
    for token in (-1, 512):
        with pytest.raises(CheckError, match=rf"sampled token {token}, expected 0 to 511"):
            sampled_logit(token, None, 512)
    assert sampled_logit(511, None, 512) is None


def test_on_the_command_line(spoilt, run_cli):
    options = ("--model", str(spoilt), "--max-new-tokens", "40")
    done = run_cli(*options, "--check", "reference", code=1)
    assert re.search(r"number; node lm_head: \S+ reads (nan|-?inf) in `weight` \(lm_head\.weight\) "
                     r"at \[300, 5\]", done.stderr), done.stderr
    assert "--check-finite leaves that call in a capsule" in done.stderr
    assert "cross-check" in done.stderr
    assert done.stdout.startswith("Once upon a time")
    assert run_cli(*options, "--allow-nonfinite", code=0).stdout.startswith("Once upon a time")
    done = run_cli(*options, "--json", code=1)
    found = json.loads(done.stdout)
    assert found["nonfinite"] == len(found["prompt_tokens"]) + len(found["tokens"])
    assert found["finish_reason"] == "nonfinite" and "--check-finite" in done.stderr
    assert json.loads(run_cli(*options, "--json", "--allow-nonfinite", code=0).stdout)[
        "nonfinite"] == found["nonfinite"]
    done = run_cli(*options, "--check-finite", "--no-fusion", code=1)
    assert "in `weight` (lm_head.weight) at [300, 5]" in done.stderr
