"""Exports that stop, fail or meet what is there."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from format_models import REGISTRY, random_model

from core.errors import CheckError
from models import export
from models.checkpoints.source import Source
from models.checkpoints.targets import choose_target


def test_no_folder_and_no_space(run_export, monkeypatch, tmp_path):
    assert "does not exist; make it first" in run_export("stories-llama2", "hf", "a/b")[2]
    full = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    code, _, err = run_export("stories-llama2", "hf", "m")
    assert code == 2 and "has 1 MiB free, the export needs up to" in err
    assert not list(tmp_path.iterdir())


def test_a_difference_is_found(monkeypatch, tmp_path):
    """Catch a writer that forgets the row order, and leave nothing behind."""
    monkeypatch.setattr("models.checkpoints.source.to_pairs", lambda rows, heads: rows)
    source = Source(random_model(), REGISTRY)
    target = choose_target("llama2c", source, None, None, None)
    with pytest.raises(CheckError, match="reloaded and its logits differ"):
        export.export(source, target, tmp_path / "m", REGISTRY)
    assert not list(tmp_path.iterdir())
    said = export.export(source, target, tmp_path / "m", REGISTRY, verify=False)
    assert said == "not verified" and (tmp_path / "m").exists()


@pytest.mark.parametrize("to", ["hf", "kuiper"])
@pytest.mark.parametrize("stop, code", [(KeyboardInterrupt, 130), (OSError(28, "No space"), 2)])
def test_stopped_while_writing(to, stop, code, run_export, monkeypatch, tmp_path):
    """Until it is verified nothing has the target's name; what was there stays, and nothing else.
    """
    assert run_export("stories-llama2", to, "m")[0] == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    seen = []

    def progress(self, what, done, total):
        if what.startswith("writing") and done > total // 2:
            seen.append(sorted(p.name[:3] for p in tmp_path.iterdir() if p.name[0] == "."))
            assert {p: p.read_bytes() for p in before} == before
            raise stop
    monkeypatch.setattr("models.cli.report.Loading.progress", progress)
    assert run_export("stories-qwen2" if to == "hf" else "stories-llama2", to, "m", "--force"
                      )[0] == code
    assert seen == [[".m."]]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_no_verify(run_export, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "verify_written", None)  # calling it would fail
    code, out, _ = run_export("stories-llama2", "kuiper", "m", "--no-verify")
    assert code == 0 and "not verified" in out and (tmp_path / "m").exists()


def change_config(folder, **keys):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"].update(keys)
    (folder / "config.json").write_text(json.dumps(config))


def test_damaged_quantised_folders(run_export, tmp_path):
    from safetensors.numpy import load_file, save_file
    assert run_export("stories-llama2", "hf", "q", "--quantize", "int8")[0] == 0
    for keys, complaint in (({"quant_method": "bnb"}, "quant_method is 'bnb', expected"),
                            ({"bits": 3}, "bits is 3, expected 4 or 8"),
                            ({"group_size": -1}, "group_size is -1"),
                            ({"has_zeros": None}, "'has_zeros' is missing")):
        folder = shutil.copytree(tmp_path / "q", tmp_path / "damaged", dirs_exist_ok=True)
        change_config(folder, **keys)
        code, _, err = run_export(folder, "hf", "out")
        assert code == 2 and complaint in err
    folder = shutil.copytree(tmp_path / "q", tmp_path / "damaged", dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight.scales"]
    save_file(tensors, folder / "model.safetensors")
    code, _, err = run_export(folder, "hf", "out")
    assert code == 2 and "up_proj.weight.scales is missing" in err


def test_commands_of_the_documentation(monkeypatch, tmp_path):
    pytest.importorskip("gguf", reason="needs the extra: pip install '.[gguf]'")
    page = Path(__file__).parents[2] / "docs" / "file-formats.md"
    lines = [shlex.split(line)[3:] for line in page.read_text().splitlines()
             if line.startswith("python -m models.export ")]
    monkeypatch.chdir(tmp_path)
    assert lines and [export.main(line) for line in lines] == [0] * len(lines)


def test_exit_codes_in_a_process(tmp_path):
    """Run it as a user does; an error has no traceback."""
    for arguments, code, said in (
            (["-m", "models.export", "--model", "stories-llama2", "--to", "kuiper", "--out", "m"],
             0, "wrote m (kuiper, f32); logits differ by at most"),
            (["-m", "models.export", "--model", "stories-llama2", "--to", "kuiper", "--out", "m"],
             2, "m exists; pass --force"),
            (["-m", "models.export", "--model", "stories-llama2", "--to", "kuiper"], 2,
             "the following arguments are required: --out")):
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
        assert "Traceback" not in done.stderr
