"""docs/plugin-api.md at work: each example is installed and does what the page says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from plugin_site import install, python
from safetensors.numpy import load_file, save_file

from core.plugins import hookspecs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugin-api.md").read_text()


def example(name: str) -> str:
    """Return the block of the page that is the file `name/name.py`."""
    blocks = re.findall(r"^```python\n# file: (\S+)\n(.*?)^```", PAGE, re.M | re.S)
    return dict(blocks)[f"{name}/{name}.py"]


def test_the_page_lists_every_hook():
    hooks = [n for n in vars(hookspecs) if n.startswith("register_")]
    assert hooks and [h for h in hooks if f"| `{h}(" not in PAGE] == []


def test_the_guest(tmp_path):
    site = install(tmp_path / "site", "norm-guest", "norm_guest", example("norm_guest"))
    run = python(site, "-m", "models.run", "--no-fusion", "--max-new-tokens", "2",
                 "--check", "reference")
    assert "guest kernel: cpu_numpy:guest_norm, from norm-guest 1.0" in run.stderr


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A folder of the page's family: stories-llama2 with q, k and v of a layer in one tensor."""
    import models
    from models import export
    folder = tmp_path_factory.mktemp("joined")
    assert export.main(["--model", "stories-llama2", "--to", "hf", "--dtype", "f32", "--no-verify",
                        "--out", str(folder / "m")]) == 0
    with models.load(folder / "m") as model:
        expected = model.logits([1, 5, 9])
    arrays = load_file(folder / "m/model.safetensors")
    for name in [n for n in arrays if n.endswith("q_proj.weight")]:
        prefix = name.removesuffix("q_proj.weight")
        arrays[f"{prefix}qkv_proj.weight"] = np.concatenate(
            [arrays.pop(f"{prefix}{part}_proj.weight") for part in "qkv"])
    save_file(arrays, folder / "m/model.safetensors")
    config = json.loads((folder / "m/config.json").read_text())
    config["architectures"] = ["JoinedForCausalLM"]
    (folder / "m/config.json").write_text(json.dumps(config))
    install(folder / "site", "joined-family", "joined_family", example("joined_family"))
    return folder, expected


def logits(folder, **options):
    code = (f"import models, numpy as np\nwith models.load({str(folder / 'm')!r}, **{options!r}) "
            "as model:\n    np.save('logits.npy', model.logits([1, 5, 9]))")
    python(folder / "site", "-c", code)
    return np.load(folder / "work/logits.npy")


def test_a_family_that_joins_tensors(joined):
    folder, expected = joined
    assert np.array_equal(logits(folder), expected), "the same weights, the same bits"
    quantised = logits(folder, quantize="int8", quantize_only=["*.q_proj.weight"])
    assert 0 < np.abs(quantised - expected).max() < 0.2, "quantising sees the split matrix"


def test_plan_sees_the_split_tensors(joined):
    folder, _ = joined
    plan = json.loads(python(folder / "site", "-m", "models.plan", "--model",
                             str(folder / "m"), "--json").stdout)
    same = json.loads(python(folder / "site", "-m", "models.plan", "--model", "stories-llama2",
                             "--json").stdout)
    assert plan["at_context"] == same["at_context"] and plan["parameters"] == same["parameters"]


def test_a_missing_source_is_named(joined, tmp_path):
    folder, _ = joined
    broken = tmp_path / "m"
    broken.mkdir()
    for file in (folder / "m").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    arrays = load_file(broken / "model.safetensors")
    name = "model.layers.1.self_attn.qkv_proj.weight"
    whole = arrays.pop(name)
    save_file(arrays, broken / "model.safetensors")
    run = ["-m", "models.run", "--model", str(broken)]
    assert f"tensor {name}, of which" in python(folder / "site", *run, code=2).stderr
    save_file({**arrays, name: whole[:-1]}, broken / "model.safetensors")
    assert f"of {name}, which has {len(whole) - 1}" in python(folder / "site", *run, code=2).stderr


def test_its_rope_type_and_its_name_in_gguf(joined, tmp_path):
    folder, _ = joined
    code = ("from core.installed.registry import default_registry as r\n"
            "from models.architectures.base import families\n"
            "from models import RopeConfig\n"
            "from models.architectures.rope import inverse_frequencies as f\n"
            "print(families(r())['JoinedForCausalLM'].gguf_name)\n"
            "rope = RopeConfig.read({'rope_scaling': {'rope_type': 'halved', 'by': 2.0}}, 'x', 9)\n"
            "print(*f(rope, 4))")
    name, numbers = python(folder / "site", "-c", code).stdout.splitlines()
    assert name == "joined" and np.allclose([float(n) for n in numbers.split()], [0.5, 0.005])
    pytest.importorskip("gguf", reason="GGUF tests need the extra: pip install '.[gguf]'")
    from gguf import GGUFReader, GGUFWriter

    from models import export
    file, other = tmp_path / "m.gguf", tmp_path / "n.gguf"
    assert export.main(["--model", "stories-llama2", "--to", "gguf", "--out", str(file),
                        "--no-verify"]) == 0
    text = python(folder / "site", "-m", "models.run", "--model", str(file),
                  "--max-new-tokens", "5").stdout
    copy_as(GGUFReader(file), GGUFWriter(other, "joined"))
    assert python(folder / "site", "-m", "models.run", "--model", str(other),
                  "--max-new-tokens", "5").stdout != "" and text


def copy_as(reader, writer):
    """Copy a GGUF file under another architecture's name; q and k go from pairs to halves."""
    from gguf import GGUFValueType

    from models.checkpoints.rows import to_halves
    heads = {}
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        name, value = field.name.replace("llama.", "joined."), field.contents()
        kind = field.types[0]
        if kind is GGUFValueType.ARRAY:
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, kind)
        heads[field.name] = value
    counts = {"attn_q": heads["llama.attention.head_count"],
              "attn_k": heads["llama.attention.head_count_kv"]}
    for tensor in reader.tensors:
        count = counts.get(tensor.name.split(".")[-2])
        data = np.array(tensor.data)
        writer.add_tensor(tensor.name, to_halves(data, count) if count else data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_new_load_option_is_one_field(capsys):
    """A field with its help is an argument of every command, and reaches the loader."""
    import argparse
    from dataclasses import dataclass

    from models.cli.arguments import add_load_options, load_options
    from models.engine.options import LoadOptions, option

    @dataclass(frozen=True)
    class More(LoadOptions):
        speculate: int = option(0, "tokens guessed ahead", type=int, metavar="N")
    parser = argparse.ArgumentParser()
    add_load_options(parser, More)
    args = parser.parse_args(["--speculate", "3", "--kernel", "add=cpu_numpy", "--no-fusion"])
    options = load_options(args, More)
    assert options.speculate == 3 and options.kernels == ["add=cpu_numpy"] and not options.fusion
    assert "tokens guessed ahead" in parser.format_help()
    import models
    with models.load("stories-llama2", options, max_context=16, kernels=()) as model:
        assert model.session.max_context == 16


def test_every_command_that_loads_takes_every_load_option():
    from dataclasses import fields

    from models import bench, plan, run, verify
    from models.engine.options import LoadOptions
    names = {f.name for f in fields(LoadOptions)}
    for door, apart in ((run, set()), (plan, set()), (bench, {"max_context"}), (verify, set())):
        taken = {a.dest for a in door.parser()._actions}
        assert names - taken == apart, door.__name__
        assert "model" in taken
