"""Rope types: frequencies and logits against transformers, and numbers that nobody can compute."""

import json
from dataclasses import replace

import numpy as np
import pytest
from format_models import REGISTRY, difference, random_model

import models
from core.errors import ConfigError, OptionError
from models.architectures.rope import RopeConfig, inverse_frequencies
from models.checkpoints.source import Source
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions

D, ORIGINAL, LONG = 16, 64, 256
SHORT = [1.0 + 0.05 * i for i in range(D // 2)]
FAR = [1.5 + 2.0 * i for i in range(D // 2)]
BLOCKS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "yarn, no factor": {"rope_type": "yarn", "factor": None,
                        "original_max_position_embeddings": ORIGINAL},
    "yarn, stated": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5,
                     "beta_fast": 8, "beta_slow": 2, "truncate": False,
                     "original_max_position_embeddings": ORIGINAL},
    "yarn, mscale": {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.707,
                     "original_max_position_embeddings": ORIGINAL},
    "yarn, equal betas": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 1,
                          "truncate": False, "original_max_position_embeddings": ORIGINAL},
    "yarn, zeros for none": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 0, "mscale": 1.0,
                             "mscale_all_dim": 0.0, "original_max_position_embeddings": ORIGINAL},
    "longrope": {"rope_type": "longrope", "short_factor": SHORT, "long_factor": FAR,
                 "original_max_position_embeddings": ORIGINAL},
    "longrope, factor": {"rope_type": "longrope", "short_factor": SHORT, "long_factor": FAR,
                         "factor": 32.0, "original_max_position_embeddings": ORIGINAL},
    "longrope, stated": {"rope_type": "longrope", "short_factor": SHORT, "long_factor": FAR,
                         "attention_factor": 1.19, "original_max_position_embeddings": ORIGINAL},
}


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="parity needs the extra: pip install '.[parity]'")
    return pytest.importorskip("transformers", reason="parity needs '.[parity]'")


@pytest.mark.parametrize("theta", [10000.0, 1e6])
@pytest.mark.parametrize("name", BLOCKS)
def test_tables_are_transformers(name, theta, transformers):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    block = {**BLOCKS[name], "rope_theta": theta}
    config = transformers.LlamaConfig(hidden_size=2 * D, num_attention_heads=2, head_dim=D,
                                      max_position_embeddings=LONG, rope_parameters=dict(block))
    rope = RopeConfig.read({"rope_parameters": block}, "x", LONG)
    for length in (ORIGINAL, ORIGINAL + 1, LONG):
        theirs, factor = ROPE_INIT_FUNCTIONS[block["rope_type"]](config, "cpu", seq_len=length)
        ours = inverse_frequencies(replace(rope, context=length), D)
        assert np.allclose(ours, theirs.numpy(), rtol=1e-6, atol=0)
        assert rope.attention_factor == pytest.approx(factor, rel=1e-12)


def make(transformers, folder, family, positions=LONG, **block):
    """Save a random model as transformers writes it, with weights large enough to attend far."""
    import torch
    torch.manual_seed(7)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=97, hidden_size=2 * D, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=D, initializer_range=0.3,
        max_position_embeddings=positions, rope_parameters={"rope_theta": 10000.0, **block})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_parameters"]["rope_type"] == block["rope_type"]
    return model


def compare(theirs, model, length):
    import torch
    ids = np.random.default_rng(length).integers(3, 97, length).tolist()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    return difference(model.logits(ids), expected)


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
@pytest.mark.parametrize("name", [n for n in BLOCKS if n not in ("linear", "llama3")])
def test_logits_are_transformers(name, family, transformers, tmp_path):
    """At lengths up to the original context, and beyond it where that is allowed."""
    theirs = make(transformers, tmp_path, family, **BLOCKS[name])
    with models.load(tmp_path) as model:
        for length in (10, ORIGINAL):
            assert compare(theirs, model, length) < 2e-5
        if not name.startswith("longrope"):
            assert model.session.max_context >= LONG
            assert compare(theirs, model, LONG) < 2e-5
            return
    assert model.session.max_context == ORIGINAL and model.notes == []
    with models.load(tmp_path, max_context=LONG, chunk=50) as model:
        for length in (ORIGINAL + 1, LONG):
            assert compare(theirs, model, length) < 2e-5
        assert compare(theirs, model, ORIGINAL) > 1e-3, "transformers uses the short factors here"
        assert "beyond 64 tokens from the first token on" in " ".join(model.notes)


@pytest.mark.parametrize("name, prompt", [("yarn", 50), ("yarn", 90), ("longrope", 70),
                                          ("longrope", 20)])
def test_decoding_is_transformers(name, prompt, transformers, tmp_path):
    """A cache that grows within the original context, across its end with yarn, and beyond."""
    import torch
    theirs = make(transformers, tmp_path, "Llama", **BLOCKS[name])
    ids = np.random.default_rng(prompt).integers(3, 97, prompt).tolist()
    out = theirs.generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False,
                          eos_token_id=None, pad_token_id=0)[0, prompt:].tolist()
    with models.load(tmp_path, max_context=ORIGINAL if prompt < 50 else 128) as model:
        generation = model.generate(ids, max_new_tokens=30)
        generation.stop_ids = frozenset()
        assert generation.run().tokens == out


def test_yarn_reaches_the_extended_context(transformers, tmp_path):
    """Qwen2.5's documented block leaves max_position_embeddings at the original context."""
    theirs = make(transformers, tmp_path, "Qwen2", positions=ORIGINAL, **BLOCKS["yarn"])
    with models.load(tmp_path) as model:
        assert model.session.max_context == 4 * ORIGINAL
        assert compare(theirs, model, 3 * ORIGINAL) < 2e-5


def test_dynamic_ends_at_the_window():
    model = random_model(rope_parameters={"rope_theta": 10000.0, **BLOCKS["dynamic"]})
    with pytest.raises(OptionError, match=r"expected 1 to 128.*rope 'dynamic' would change"):
        open_checkpoint(model, LoadOptions(max_context=129), REGISTRY)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_gguf_does_not_hold_it(name, tmp_path):
    pytest.importorskip("gguf", reason="needs the extra: pip install '.[gguf]'")
    from core.plan.weights import no_progress
    from models.checkpoints.gguf.writer import write_gguf
    source = Source(random_model(rope_parameters=BLOCKS[name]), REGISTRY)
    with pytest.raises(ConfigError, match=f"rope '{name}' is not written to GGUF"):
        write_gguf(source, tmp_path / "x.gguf", "f32", no_progress)
    assert not list(tmp_path.iterdir())


YARN, LR = BLOCKS["yarn"], BLOCKS["longrope"]
BAD = {
    "tiny theta": ({"rope_type": "default", "rope_theta": 1e-300}, "theta 1e-300 gives freq"),
    "denormal theta": ({"rope_type": "llama3", **BLOCKS["llama3"], "rope_theta": 1e-44},
                       "gives frequencies"),
    "tiny factor": ({"rope_type": "linear", "factor": 1e-300}, "factor 1e-300 gives frequencies"),
    "no turn": ({**YARN, "rope_theta": 1.0}, "theta 1, .*gives frequencies up to nan"),
    "yarn of nothing": ({"rope_type": "yarn"}, "rope 'yarn' has no factor"),
    "yarn's factor": ({**YARN, "factor": -1}, "needs a positive factor, found -1"),
    "yarn's tiny factor": ({**YARN, "factor": 1e-300}, "gives frequencies"),
    "attention": ({**YARN, "attention_factor": 1e10}, "attention factor of 1e.10"),
    "attention is a text": ({**YARN, "attention_factor": "2"}, "positive attention_factor"),
    "truncate": ({**YARN, "truncate": 1}, "truncate is 1, expected true or false"),
    "original": ({**YARN, "original_max_position_embeddings": 0}, "needs a positive original_max"),
    "original half": ({**YARN, "original_max_position_embeddings": 0.5}, "attention factor of nan"),
    "original of one": ({**LR, "original_max_position_embeddings": 1}, "attention factor of nan"),
    "no long": ({**LR, "long_factor": None}, "a list of positive numbers long_factor, found None"),
    "zero": ({**LR, "long_factor": [0.0] * 8}, r"positive numbers long_factor, found \[0.0"),
    "infinite": ({**LR, "long_factor": [float("inf")] * 8}, "positive numbers long_factor"),
    "short list": ({**LR, "long_factor": [1.0] * 7}, "long_factor has 7 numbers, expected .* = 8"),
    "partial": ({"rope_type": "default", "partial_rotary_factor": 0.5}, "only 1.0 is supported"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_numbers_are_named(what):
    block, said = BAD[what]
    with pytest.raises(ConfigError, match=said):
        Source(random_model(rope_theta=None, rope_parameters=block), REGISTRY)


def test_two_original_contexts():
    keys = {"original_max_position_embeddings": 32, "rope_parameters": YARN}
    with pytest.raises(ConfigError, match="is 64 among the rope parameters, 32 beside them"):
        RopeConfig.read(keys, "x", LONG)
    block = {k: v for k, v in YARN.items() if not k.startswith("original")}
    assert RopeConfig.read({**keys, "rope_parameters": block}, "x", LONG).original == 32
