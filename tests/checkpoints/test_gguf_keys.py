"""GGUF's hyperparameters: each row of the table in docs/file-formats.md, on metadata that state it.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from format_models import REGISTRY, difference, logits, random_model
from gguf_files import gguf, write_foreign

from core.errors import ConfigError
from core.plan.weights import no_progress
from models.architectures.base import families
from models.checkpoints.base import read_checkpoint
from models.checkpoints.gguf.config import read_gguf_config
from models.checkpoints.gguf.header import GgufHeader, TensorInfo, read_header
from models.checkpoints.gguf.keys import HARMLESS, ONLY, USED
from models.checkpoints.gguf.types import SUPPORTED
from models.checkpoints.gguf.writer import write_gguf
from models.checkpoints.source import Source

PAGE = Path(__file__).parents[2] / "docs" / "file-formats.md"
SMALL = {"dim": 64, "hidden": 96, "layers": 2, "interleaved": False}
CHANGED = {  # another value of each key that is used, and what it changes, or the complaint
    "context_length": (64, "max_position_embeddings"), "embedding_length": (128, "hidden_size"),
    "block_count": (1, "num_hidden_layers"), "feed_forward_length": (80, "intermediate_size"),
    "attention.head_count": (8, "num_attention_heads"),
    "attention.head_count_kv": (1, "num_key_value_heads"),
    "attention.key_length": (32, "head_dim"),
    "attention.value_length": (32, "expected the head size 16"),
    "attention.layer_norm_rms_epsilon": (1e-3, "rms_norm_eps"),
    "rope.dimension_count": (8, "expected the head size 16"),
    "rope.freq_base": (5e5, "rope_parameters"),
    "rope.scaling.type": ("longrope", "rope scaling 'longrope' is not supported, expected none, l"),
    "rope.scaling.factor": (4.0, "rope_parameters"), "rope.scale_linear": (4.0, "rope_parameters"),
    "rope.scaling.original_context_length": (32, "rope_parameters"),
    "rope.scaling.yarn_beta_fast": (8.0, "rope_parameters"),
    "rope.scaling.yarn_beta_slow": (2.0, "rope_parameters"),
    "rope.scaling.yarn_log_multiplier": (0.7, "rope_parameters")}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
# key of ONLY -> a value that changes nothing, and one that does; 0 and 3 unless it is here
VALUES = {
    "embedding_length_out": (64, 32), "tensor_data_layout": ("Meta AI original pth", "transposed"),
    "logit_scale": (1.0, 0.5), "residual_scale": (1.0, 0.5), "embedding_scale": (1.0, 12.0),
    "attention.scale": (0.25, 0.2), "attention.causal": (True, False),
    "attention.sliding_window": (128, 127),
    "attention.layer_norm_epsilon": (float(np.float32(1e-5)), 1e-6),
    "attention.output_scale": (1.0, 0.5), "rope.scaling.attn_factor": (1.0, 1.2),
    "rope.scaling.yarn_attn_factor": (1.0, 1.2), "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
    "rope.scaling.alpha": (1.0, 1000.0)}


@pytest.fixture(scope="module")
def header(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "m.gguf"
    write_foreign(path, random_model(**SMALL), tokenizer=False)
    return read_header(path)


def config(header, **metadata):
    """Read the configuration with these keys, all of `llama`, in addition or instead."""
    changed = {f"llama.{key}": value for key, value in metadata.items()}
    made = GgufHeader(header.path, {**header.metadata, **changed}, header.tensors)
    return read_gguf_config(made, families(REGISTRY)["LlamaForCausalLM"]).data


def rows():
    """Return the table of the page: key, what is done, why."""
    text = PAGE.read_text().partition("### Hyperparameters")[2].partition("\n##")[0]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | "))
            for line in text.splitlines() if line.startswith("| `")]


def test_the_page_shows_the_tables():
    said = [*((f"`{key}`", "used", why) for key, why in USED.items()),
            *((f"`{key}`", "changes nothing", why) for key, why in HARMLESS.items()),
            *((f"`{key}`", f"refused unless {rule.said}", rule.does)
              for key, rule in ONLY.items())]
    assert rows() == said
    assert not (USED.keys() & HARMLESS.keys() | USED.keys() & ONLY.keys()
                | HARMLESS.keys() & ONLY.keys())


@pytest.mark.parametrize(("key", "done", "why"), rows(), ids=[row[0] for row in rows()])
def test_row(key, done, why, header):
    key, base = key.strip("`"), YARN if why.startswith("yarn's: ") else {}
    before = config(header, **base)
    if done == "used":
        value, changes = CHANGED[key]
        if changes in before:
            after = config(header, **{**base, key: value})
            assert {k for k in before if after[k] != before[k]} >= {changes}
        else:
            with pytest.raises(ConfigError, match=re.escape(changes)):
                config(header, **{key: value})
    elif done == "changes nothing":
        for value in (0, 7, 1.5, True, "some", [1, 2]):
            assert config(header, **{key: value}) == before
    else:
        neutral, other = VALUES.get(key, (0, 3))
        assert config(header, **{key: neutral}) == before
        for value in (other, "some", [1], float("nan")):
            with pytest.raises(ConfigError) as refused:
                config(header, **{key: value})
            assert f"llama.{key} is " in str(refused.value) and why in str(refused.value)


def test_every_name_of_the_package_has_a_fate(header):
    """Refuse what gguf.constants names and no row has: it belongs to other families."""
    keys = gguf.constants.Keys
    names = {value.removeprefix("{arch}.") for group in vars(keys).values()
             if isinstance(group, type) for value in vars(group).values()
             if isinstance(value, str) and value.startswith("{arch}.")}
    others = names - USED.keys() - HARMLESS.keys() - ONLY.keys()
    assert len(names) > 90 and "attention.sliding_window_pattern" in others
    for name in sorted(others):
        with pytest.raises(ConfigError, match="changes the result in ways that are not known here"):
            config(header, **{name: 1})


def test_unknown_keys_of_the_architecture_alone(header):
    with pytest.raises(ConfigError, match=r"llama.some.new_thing is 3; it changes the result"):
        config(header, **{"some.new_thing": 3})
    other = GgufHeader(header.path, {**header.metadata, "llamas.some": 1, "quantize.imatrix": 2},
                       header.tensors)
    assert read_gguf_config(other, families(REGISTRY)["LlamaForCausalLM"]).data == config(header)


def test_a_family_reads_keys_of_its_own(header):
    class Capped(type(families(REGISTRY)["LlamaForCausalLM"])):
        gguf_keys = {"final_logit_softcapping": "final_cap", "new_key": "new"}  # noqa: RUF012
    made = GgufHeader(header.path, {**header.metadata, "llama.final_logit_softcapping": 30.0,
                                    "llama.new_key": 5}, header.tensors)
    found = read_gguf_config(made, Capped()).data
    assert (found["final_cap"], found["new"]) == (30.0, 5)


@pytest.mark.parametrize("key", ["feed_forward_length", "attention.head_count",
                                 "attention.head_count_kv"])
def test_sizes_by_layer(key, header):
    value = header.metadata[f"llama.{key}"]
    assert config(header, **{key: [value, value]}) == config(header)
    for bad in ([value, value * 2], [value], [value] * 3, []):
        with pytest.raises(ConfigError, match=rf"llama.{key} is .*the same for each of 2 layers"):
            config(header, **{key: bad})


@pytest.mark.parametrize(("stated", "factor"), [
    ({"rope.scale_linear": 4.0}, 4.0), ({"rope.scaling.factor": 4.0}, 4.0),
    ({"rope.scaling.factor": 4.0, "rope.scaling.type": "linear"}, 4.0),
    ({"rope.scale_linear": 4.0, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, 4.0),
    ({"rope.scaling.factor": 4.0, "rope.scaling.type": "none"}, None),
    ({"rope.scale_linear": 1.0}, None), ({"rope.scaling.factor": 0.0}, None)])
def test_linear_scaling(stated, factor, tmp_path):
    """Compare logits with those of a model that config.json scales."""
    scaling = {"rope_scaling": {"rope_type": "linear", "factor": factor}} if factor else {}
    model = random_model(**SMALL, **scaling)
    overrides = {f"llama.{key}": value for key, value in stated.items()}
    _, path = write_foreign(tmp_path / "m.gguf", model, **overrides)
    assert difference(logits(path, 100), logits(model, 100)) < 5e-6


@pytest.mark.parametrize(("stated", "block"), [
    ({}, {}),
    ({"original_context_length": 64}, {"original_max_position_embeddings": 64}),
    ({"yarn_beta_fast": 20.0, "yarn_beta_slow": 2.0, "yarn_ext_factor": 1.0},
     {"beta_fast": 20.0, "beta_slow": 2.0}),
    ({"yarn_attn_factor": 1.5}, {"attention_factor": 1.5}),
    ({"yarn_log_multiplier": 0.7}, {"mscale": 1.0, "mscale_all_dim": 0.7}),
    ({"attn_factor": 1.5}, {"attention_factor": 1.5 * (1 + 0.1 * np.log(4))})])
def test_yarn(stated, block, tmp_path):
    """Compare logits with those of a model of config.json, which test_rope.py compares with
    transformers; then export them."""
    block = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, **block}
    model = random_model(**SMALL, rope_scaling=block)
    overrides = {f"llama.rope.scaling.{key}": value
                 for key, value in {"type": "yarn", "factor": 4.0, **stated}.items()}
    _, path = write_foreign(tmp_path / "m.gguf", model, **overrides)
    plain = logits(random_model(**SMALL), 100)
    assert difference(logits(path, 100), logits(model, 100)) < 5e-6
    assert difference(logits(path, 100), plain) > 1e-3
    write_gguf(Source(model, REGISTRY), tmp_path / "again", "f32", no_progress)
    assert difference(logits(tmp_path / "again", 100), logits(model, 100)) < 5e-6


def test_yarn_that_cannot_be(header):
    for stated, complaint in (
            ({"rope.scaling.type": "yarn"}, "needs llama.rope.scaling.factor, found 0"),
            ({**YARN, "rope.scaling.yarn_ext_factor": 0.0}, "yarn_ext_factor is 0.0, only"),
            ({**YARN, "rope.scaling.attn_factor": 0.0}, "attn_factor is 0.0, only 1, or yarn's"),
            ({**YARN, "rope.scaling.original_context_length": 0.5}, "is 0.5, expected a number of"),
            ({**YARN, "rope.scaling.yarn_beta_fast": "x"}, "beta_fast is 'x', expected float")):
        with pytest.raises(ConfigError, match=re.escape(complaint)):
            config(header, **stated)


def test_scalings_that_contradict(header):
    with pytest.raises(ConfigError, match=r"rope.scaling.factor and llama.rope.scale_linear are 4 "
                                          "and 2, expected one factor"):
        config(header, **{"rope.scaling.factor": 4.0, "rope.scale_linear": 2.0})
    with pytest.raises(ConfigError, match="rope 'linear' needs a positive factor"):
        family = families(REGISTRY)["LlamaForCausalLM"]
        made = GgufHeader(header.path, {**header.metadata, "llama.rope.scale_linear": -4.0},
                          header.tensors)
        family.config(read_gguf_config(made, family))


def test_table_and_factor(header):
    table = TensorInfo("rope_freqs.weight", (8,), SUPPORTED[0],
                       np.ones(8, np.float32).view(np.uint8))
    made = GgufHeader(header.path, {**header.metadata, "llama.rope.scaling.factor": 2.0},
                      {**header.tensors, table.name: table})
    with pytest.raises(ConfigError, match=r"by rope_freqs.weight and by 'linear' 2, only one"):
        read_gguf_config(made, families(REGISTRY)["LlamaForCausalLM"])


def test_files_that_hold_no_model(tmp_path):
    _, path = write_foreign(tmp_path / "m", random_model(**SMALL), **{"general.type": "adapter"})
    with pytest.raises(ConfigError, match=r"general.type is 'adapter', expected 'model'"):
        read_checkpoint(path, REGISTRY)


@pytest.mark.parametrize(("kind", "version", "fits"), [
    ("Q8_0", 1, False), ("Q8_0", 2, True), ("F32", 1, True)])
def test_version_of_blocks(kind, version, fits, tmp_path):
    _, path = write_foreign(tmp_path / "m", random_model(**SMALL), kind,
                            **{"general.quantization_version": version})
    if fits:
        assert np.isfinite(logits(path)).all()
    else:
        with pytest.raises(ConfigError, match="quantization_version is 1, expected 2"):
            read_checkpoint(path, REGISTRY)
