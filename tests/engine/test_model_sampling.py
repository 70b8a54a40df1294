"""Read what a model's files say of sampling: used where asked for, shown, and refused by name."""

import json
import shutil

import pytest
from gguf_files import gguf

import models
from core.errors import ConfigError, OptionError
from models.checkpoints.base import SHIPPED
from models.checkpoints.generation import GenerationDefaults
from models.checkpoints.gguf.sampling import read_sampling
from models.checkpoints.huggingface.generation_config import (
    HARMLESS,
    NEUTRAL,
    USED,
    read_generation_config,
    to_generation_config,
)
from models.engine.model_sampling import sampling_line, settle_sampling
from models.json_reader import ConfigReader

NONE = ConfigReader({}, "config.json")


def folder(path, **stated):
    """A shipped model whose generation_config.json states this."""
    shutil.copytree(SHIPPED / "stories-qwen2", path)
    file = path / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **stated}))
    return path


def read(tmp_path, config=NONE, **stated):
    (tmp_path / "generation_config.json").write_text(json.dumps(stated))
    return read_generation_config(tmp_path, config)[1]


@pytest.mark.parametrize(("stated", "expected"), [
    ({}, {}),
    ({"temperature": 0.6, "top_p": 0.9}, {}),  # greedy without do_sample, as in transformers
    ({"do_sample": False, "top_k": 20, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
    ({"do_sample": True}, {"temperature": 1.0, "top_k": 50}),
    ({"do_sample": True, "temperature": 0.6, "top_k": 0}, {"temperature": 0.6}),
    ({"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1,
      "repetition_penalty": 1.05}, {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1,
                                    "repetition_penalty": 1.05}),
    ({"do_sample": None, "temperature": None}, {})])
def test_what_is_stated(tmp_path, stated, expected):
    found = read(tmp_path, **stated)
    assert found.sampling == expected
    (tmp_path / "again").mkdir()
    assert read(tmp_path / "again", **to_generation_config(found)).sampling == expected


def test_every_key_of_transformers_is_known():
    transformers = pytest.importorskip("transformers", reason="needs the extra parity")
    config = transformers.GenerationConfig()
    assert set(vars(config)) - {*USED, *NEUTRAL, *HARMLESS, "_original_object_hash"} == set()
    defaults = config._get_default_generation_params()
    assert all(defaults[key] in (None, *values) for key, values in NEUTRAL.items()
               if key in defaults)


@pytest.mark.parametrize(("key", "value"), [
    ("num_beams", 4), ("no_repeat_ngram_size", 3), ("bad_words_ids", [[5]]),
    ("forced_bos_token_id", 0), ("forced_eos_token_id", 2), ("typical_p", 0.5),
    ("suppress_tokens", [7]), ("sequence_bias", [[[5], 1.0]]), ("guidance_scale", 1.5),
    ("min_new_tokens", 3), ("top_h", 0.3), ("penalty_alpha", 0.6)])
def test_what_is_refused_by_name(tmp_path, key, value):
    assert read(tmp_path, **{key: value}).refused == (f"{key} {value}",)
    neutral = NEUTRAL[key][0] if NEUTRAL[key] else None
    assert read(tmp_path, **{key: neutral}).refused == ()
    with models.load(folder(tmp_path / "m", **{key: value}), max_context=32) as model:
        assert model.generate("Once", max_new_tokens=1).run().tokens  # options alone: no use of it
        with pytest.raises(OptionError, match=rf"generation_config.json asks for {key}.*options"):
            model.generate("Once", sampling="model")


def test_unknown_keys_and_other_types(tmp_path):
    found = read(tmp_path, chat_format="chatml", max_length=9)
    assert (found.ignored, found.where) == (("chat_format",), "generation_config.json")
    for stated in ({"do_sample": True, "temperature": "hot"}, {"do_sample": 1},
                   {"stop_strings": [5]}, {"do_sample": True, "top_k": 1.5}):
        with pytest.raises(ConfigError, match=r"generation_config\.json: "):
            read(tmp_path, **stated)


def test_config_json_counts_without_the_file(tmp_path):
    config = ConfigReader({"do_sample": True, "top_p": 0.5, "hidden_size": 8}, "x/config.json")
    found = read_generation_config(tmp_path, config)[1]
    assert found.sampling == {"temperature": 1.0, "top_k": 50, "top_p": 0.5}
    assert found.where == "config.json" and found.ignored == ()
    assert read(tmp_path, config, top_k=3).sampling == {}


def test_generate_uses_it_and_options_win(tmp_path):
    path = folder(tmp_path / "m", do_sample=True, temperature=0.9, top_k=7, top_p=0.95,
                  repetition_penalty=1.2, stop_strings=["fox"])
    with models.load(path, max_context=64) as model:
        def tokens(**options):
            return model.generate("Once upon a time", max_new_tokens=20, seed=3, **options)
        stated = dict(temperature=0.9, top_k=7, top_p=0.95, repetition_penalty=1.2)
        asked = tokens(sampling="model")
        assert asked.run().tokens == tokens(**stated).run().tokens != tokens().run().tokens
        assert asked.stop == ("fox",) and set(asked.sampling_from.values()) == {
            "generation_config.json"}
        mixed = tokens(sampling="model", top_k=2, repetition_penalty=1.0)
        assert mixed.run().tokens == tokens(**{**stated, "top_k": 2, "repetition_penalty": 1.0}
                                            ).run().tokens
        assert mixed.sampling_from["top_k"] == "option"
        assert tokens(sampling="model", temperature=0, repetition_penalty=1).run().tokens == \
            tokens().run().tokens
        assert tokens().stop == ()
        with pytest.raises(OptionError, match="sampling is 'files', expected 'options' or 'model'"):
            tokens(sampling="files")


def test_a_value_that_cannot_be_used_names_its_file(tmp_path):
    with models.load(folder(tmp_path / "m", do_sample=True, top_p=7), max_context=32) as model, \
            pytest.raises(OptionError, match=r"^generation_config\.json: top_p is 7"):
        model.generate("Once", sampling="model")


def test_the_line():
    files = GenerationDefaults("f.json", {"temperature": 0.6, "top_k": 20})

    def line(sampling, **given):
        return sampling_line(*settle_sampling(sampling, given, files))
    assert line("model") == "sampling: temperature 0.6 (f.json), top_k 20 (f.json)"
    assert line("model", top_k=5, min_p=None) == \
        "sampling: temperature 0.6 (f.json), top_k 5 (option)"
    assert line("model", temperature=0) == "sampling: greedy (option)"
    assert line("options") == "sampling: greedy"
    assert line("options", repetition_penalty=1.5) == \
        "sampling: greedy, repetition_penalty 1.5 (option)"


@pytest.mark.parametrize(("stated", "sampling", "refused"), [
    ({}, {}, ()),
    ({"temp": 0.5}, {"temperature": 0.5, "top_k": 50}, ()),
    ({"top_p": 0.5, "top_k": 0}, {"temperature": 1.0, "top_p": 0.5}, ()),
    ({"penalty_repeat": 1.5}, {"repetition_penalty": 1.5}, ()),
    ({"penalty_repeat": 1.5, "penalty_last_n": 64}, {"repetition_penalty": 1.5},
     ("general.sampling.penalty_last_n 64",)),
    ({"penalty_last_n": 64}, {}, ()),
    ({"mirostat": 2, "mirostat_tau": 5.0}, {}, ("general.sampling.mirostat 2",)),
    ({"xtc_probability": 0.5}, {}, ("general.sampling.xtc_probability 0.5",)),
    ({"sequence": "top_k;temp"}, {}, ("general.sampling.sequence 'top_k;temp'",))])
def test_keys_of_gguf(stated, sampling, refused):
    found = read_sampling({f"general.sampling.{k}": v for k, v in stated.items()}, "f")
    assert (found.sampling, found.refused) == (sampling, refused)


def test_the_keys_are_those_of_the_package():
    from models.checkpoints.gguf.sampling import _PARTS, NAMES, NEUTRAL, PREFIX
    known = {v for k, v in vars(gguf.Keys.General).items() if k.startswith("SAMPLING_")}
    assert known == {PREFIX + name for name in (*NAMES, *NEUTRAL, *_PARTS)}


def test_through_exports(tmp_path):
    from models.checkpoints.base import read_checkpoint
    from models.engine.options import LoadOptions
    from models.export import main
    source = folder(tmp_path / "m", do_sample=True, temperature=0.6, top_k=20, top_p=0.95)
    for target, out in (("gguf", "m.gguf"), ("hf", "out")):
        model = str(source if target == "gguf" else tmp_path / "m.gguf")
        assert main(["--model", model, "--to", target, "--dtype", "f32", "--no-verify",
                     "--out", str(tmp_path / out)]) == 0
        back = read_checkpoint(tmp_path / out, LoadOptions().registry())
        assert back.generation.sampling == pytest.approx(
            {"temperature": 0.6, "top_k": 20, "top_p": 0.95})


def test_the_command_line_shows_it(tmp_path, run_cli):
    path = str(folder(tmp_path / "m", do_sample=True, temperature=0.6, top_k=5, odd_key=1))
    chat = run_cli("--chat", "--model", path, "--top-p", "0.9", "--seed", "1",
                   "--max-new-tokens", "3", stdin="hi\n", code=0)
    assert ("sampling: temperature 0.6 (generation_config.json), top_k 5 (generation_config.json), "
            "top_p 0.9 (option)") in chat.stderr
    assert "generation_config.json has keys that are not known and have no effect: odd_key" \
        in chat.stderr
    plain = ("--model", path, "--prompt", "Once", "--max-new-tokens", "3")
    shown = run_cli(*plain, "--explain", code=0).stderr
    assert "sampling: greedy\n" in shown
    assert ("stop ids: 637 '<|endoftext|>' (generation_config.json), 639 '<|im_end|>' "
            "(config.json, generation_config.json") in shown, shown[-600:]
    said = json.loads(run_cli(*plain, "--sampling", "model", "--json", code=0).stdout)
    assert said["sampling"]["temperature"] == 0.6 and said["sampling"]["from"] == {
        "temperature": "generation_config.json", "top_k": "generation_config.json"}
    assert [s["id"] for s in said["stop_ids"]] == [637, 639]
    refused = folder(tmp_path / "r", num_beams=2)
    assert "asks for num_beams 2" in run_cli("--chat", "--model", str(refused), stdin="hi\n",
                                             code=2).stderr
    run_cli("--chat", "--sampling", "options", "--model", str(refused), "--max-new-tokens", "2",
            stdin="hi\n", code=0)
