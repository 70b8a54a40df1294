"""Bad input: each case is a clear error with exit code 2 and no traceback."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


def change(path, **keys):
    data = json.loads(path.read_text())
    data.update(keys)
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))


def rewrite(folder, edit):
    """Apply `edit` to the dict of a model's tensors."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


def shards(folder, placed=None):
    """Split a model into two shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[:9],
             "model-00002-of-00002.safetensors": names[9:]}
    for file, held in files.items():
        save_file({n: tensors[n] for n in held}, folder / file)
    index = {n: f for f, held in files.items() for n in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": {**index, **(placed or {})}}))


def shards_without_one(folder):
    shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def shards_that_disagree(folder):
    shards(folder, {"model.norm.weight": "model-00001-of-00002.safetensors"})


def shards_that_overlap(folder):
    shards(folder)
    path = folder / "model-00001-of-00002.safetensors"
    save_file({**load_file(path), "model.norm.weight": np.ones(128, np.float32)}, path)


Q0 = "model.layers.0.self_attn.q_proj.weight"
# what is wrong: how the folder is damaged, and what the error must say
FOLDERS = {
    "config missing": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[1]"), "expected a JSON object"),
    "architecture unknown": (lambda f: change(f / "config.json", architectures=["Mamba"]),
                             "'Mamba' is not supported, expected one of LlamaForCausalLM"),
    "architecture missing": (lambda f: change(f / "config.json", architectures=...),
                             "'architectures' is missing"),
    "key missing": (lambda f: change(f / "config.json", hidden_size=...),
                    "'hidden_size' is missing"),
    "key of wrong type": (lambda f: change(f / "config.json", hidden_size="128"),
                          "hidden_size is '128', expected int"),
    "absurd size": (lambda f: change(f / "config.json", vocab_size=-4), "vocab_size is -4"),
    "heads do not divide": (lambda f: change(f / "config.json", num_key_value_heads=3), "multiple"),
    "rope type unknown": (
        lambda f: change(f / "config.json", rope_scaling={"rope_type": "spiral", "factor": 2.0}),
        "rope type 'spiral' is not supported, expected one of default, linear, llama3"),
    "rope factor missing": (lambda f: change(f / "config.json", rope_scaling={"type": "linear"}),
                            "needs a positive factor"),
    "activation unknown": (lambda f: change(f / "config.json", hidden_act="gelu"),
                           "hidden_act is 'gelu'"),
    "more layers than weights": (lambda f: change(f / "config.json", num_hidden_layers=9),
                                 "'model.layers.3.input_layernorm.weight' is missing"),
    "fewer layers than weights": (lambda f: change(f / "config.json", num_hidden_layers=2),
                                  "have no place in the configured model"),
    "weights missing": (lambda f: (f / "model.safetensors").unlink(),
                        "no weights: no model.safetensors"),
    "weights empty": (lambda f: truncate(f / "model.safetensors", 0), "truncated"),
    "weights cut in the header": (lambda f: truncate(f / "model.safetensors", 500), "truncated"),
    "weights cut in the data": (lambda f: truncate(f / "model.safetensors", 2_000_000),
                                "truncated"),
    "weights not safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"\x93NUMPY" * 99),
                                "not a safetensors file"),
    "shard missing": (shards_without_one, "shard model-00002-of-00002.safetensors"),
    "shards disagree": (shards_that_disagree, "model.norm.weight"),
    "shards overlap": (shards_that_overlap, "is in both"),
    "tensor of wrong shape": (lambda f: rewrite(f, lambda t: t.update({Q0: t[Q0][:-1].copy()})),
                              f"{Q0} has shape [127, 128], the configuration asks for [128, 128]"),
    "tensor missing": (lambda f: rewrite(f, lambda t: t.pop(Q0)), f"{Q0!r} is missing"),
    "tensor unexpected": (
        lambda f: rewrite(f, lambda t: t.update({"model.extra": t[Q0][:1].copy()})), "model.extra"),
    "untied head missing": (lambda f: rewrite(f, lambda t: t.pop("lm_head.weight")),
                            "'lm_head.weight' is missing"),
    "tensor of unknown dtype": (lambda f: rewrite(f, lambda t: t.update({Q0: t[Q0].astype("f8")})),
                                "dtype 'F64', expected one of F32"),
    "tokenizer missing": (lambda f: (f / "tokenizer.model").unlink(), "no tokenizer.json and no"),
    "tokenizer damaged": (lambda f: truncate(f / "tokenizer.model", 100), "cannot be read"),
    "tokenizer of another model": (
        lambda f: (f / "tokenizer.model").unlink() or (f / "tokenizer.json").write_text(json.dumps({
            "version": "1.0", "added_tokens": [], "model": {
                "type": "BPE", "vocab": {f"t{i}": i for i in range(900)}, "merges": []}})),
        "the tokenizer has 900 ids, the model's vocabulary 512"),
    "generation config damaged": (lambda f: (f / "generation_config.json").write_text("nope"),
                                  "not valid JSON"),
    "config nested too deeply": (
        lambda f: (f / "config.json").write_text("[" * 100_000 + "]" * 100_000), "not valid JSON"),
    "config not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "not valid JSON"),
    "config a folder": (lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
                        "cannot read"),
    "rope theta infinite": (lambda f: change(f / "config.json", rope_theta=float("inf")),
                            "positive rope_theta"),
    "rope theta zero": (lambda f: change(f / "config.json", rope_theta=0), "positive rope_theta"),
    "rope parameters nested": (lambda f: change(f / "config.json", rope_parameters={
        "full_attention": {"rope_type": "yarn"}}), "expected one flat object"),
    "rope blocks that disagree": (lambda f: change(
        f / "config.json", rope_scaling={"rope_type": "linear", "factor": 2.0},
        rope_parameters={"rope_type": "linear", "factor": 4.0}), "disagree"),
    "part of the head rotated": (lambda f: change(f / "config.json", partial_rotary_factor=0.5),
                                 "partial_rotary_factor is 0.5"),
    "eps not a number": (lambda f: change(f / "config.json", rms_norm_eps=float("nan")),
                         "rms_norm_eps is nan"),
    "tokenizer config a list": (lambda f: (f / "tokenizer_config.json").write_text("[]"),
                                "expected a JSON object"),
    "template a folder": (lambda f: (f / "chat_template.jinja").mkdir(), "cannot be read"),
    "stop id no number": (lambda f: change(f / "generation_config.json", eos_token_id="</s>"),
                          "expected a token id"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_damaged_folder(name, model_copy, run_cli):
    damage, complaint = FOLDERS[name]
    folder = model_copy()
    damage(folder)
    done = run_cli("--model", str(folder), code=2)
    assert done.stderr.startswith("error: ") and complaint in done.stderr and not done.stdout


OPTIONS = {
    "model unknown": (["--model", "no-such"], "no model at 'no-such'"),
    "prompt empty": (["--prompt", ""], "the prompt is empty"),
    "prompt ids empty": (["--prompt-ids", ""], "the prompt is empty"),
    "prompt ids not numbers": (["--prompt-ids", "1,x"], "expected integers"),
    "prompt ids outside": (["--prompt-ids", "1,512"], "token ids [512] are outside the vocabulary"),
    "two prompts": (["--prompt", "a", "--prompt-ids", "1"], "cannot be used together"),
    "prompt too long": (["--max-context", "4"], "prompt has 5 tokens, the context holds 4"),
    "context too large": (["--max-context", "4096"], "expected 1 to 512"),
    "context zero": (["--max-context", "0"], "expected 1 to 512"),
    "backend unknown": (["--backend", "abacus"], "unknown backend 'abacus'; installed: "),
    "kernel override malformed": (["--kernel", "attention"], "expected OP=BACKEND"),
    "kernel override unknown": (["--kernel", "attention=cpu_numpy:flash"], "it offers: attention"),
    "check unknown": (["--check", "abacus"], "unknown backend 'abacus'"),
    "no kernel for the dtype": (["--dtype", "bf16"], "A is bf16, takes f32"),
    "temperature": (["--temperature", "-1"], "temperature is -1.0, expected"),
    "tokens": (["--max-new-tokens", "0"], "max_new_tokens is 0"),
    "chat without template": (["--chat"], "has no chat template"),
    "chat with prompt": (["--chat", "--prompt", "x"], "--chat is a conversation"),
    "stop empty": (["--stop", ""], "expected texts that are not empty"),
    "check empty": (["--check", ""], "distinct names"),
    "override of no node": (["--kernel", "layers.99.*:attention=cpu_numpy"], "applies to no node"),
    "override of a fusion that is off": (["--kernel", "gate_up_swiglu=cpu_numpy", "--no-fusion"],
                                         "fusion is off"),
    "override of a fusion that refuses": (
        ["--kernel", "gate_up_swiglu=cpu_numpy", "--model", "stories-llama3"],
        "cpu_numpy:gate_up_swiglu: W is bf16, takes f32"),
    "top-k too large": (["--top-k", "3000000000"], "top_k is 3000000000"),
    "penalty too small": (["--repetition-penalty", "1e-50"], "repetition_penalty is 1e-50"),
    "temperature infinite": (["--temperature", "inf"], "temperature is inf"),
    "a graph in a conversation": (["--chat", "--explain", "dot"], "cannot be used with --chat"),
    "graph in an object": (["--json", "--explain", "dot"], "cannot be used with --json"),
    "two checks": (["--check", "reference", "--check-finite"], "cannot be used together"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options(name, run_cli):
    arguments, complaint = OPTIONS[name]
    done = run_cli(*arguments, code=2)
    assert done.stderr.startswith("error: ") and complaint in done.stderr and not done.stdout


def test_unknown_option_and_choice(run_cli):
    assert "unrecognized arguments: --fast" in run_cli("--fast", code=2).stderr
    assert "invalid choice: 'int3'" in run_cli("--quantize", "int3", code=2).stderr


def test_check_finite_names_the_weight(model_copy, run_cli):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    folder = model_copy()
    rewrite(folder, spoil)
    done = run_cli("--model", str(folder), "--check-finite", "--no-fusion", code=1)
    assert "reads nan in `weight` (model.layers.1.mlp.up_proj.weight) at [3, 4]" in done.stderr
    assert run_cli("--check-finite", "--max-new-tokens", "3", code=0).stdout.startswith("Once")


def test_a_template_that_fails(model_copy, run_cli):
    folder = model_copy("stories-qwen2")
    for source, complaint in (("{{ raise_exception('no system role') }}", "no system role"),
                              ("{% for %}", "template failed"), ("{{ 1 / 0 }}", "division"),
                              ("{{ messages[0].content + 1 }}", "template failed")):
        change(folder / "tokenizer_config.json", chat_template=source)
        assert complaint in run_cli("--chat", "--model", str(folder), stdin="hi\n", code=2).stderr


def test_prompts_that_are_not_utf8(tmp_path):
    for arguments, stdin in ((["--prompt", b"abc\xff"], b""), ([], b"abc\xff\n")):
        for model in (b"stories-llama2", b"stories-qwen2"):
            command = [sys.executable, "-m", "models.run", "--model", model, *arguments]
            done = subprocess.run(command, input=stdin, capture_output=True, cwd=tmp_path,
                                  timeout=60)
            assert done.returncode == 2 and b"not valid UTF-8" in done.stderr, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["run --max-new-tokens 3", "run --json", "plan --json",
                                       "doctor"])
def test_output_that_cannot_be_written(arguments, unbuffered):
    """Write to a full disk, and to a reader that goes away."""
    command = f"PYTHONUNBUFFERED={unbuffered} {sys.executable} -m models.{arguments} < /dev/null"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
    assert full.returncode == 2 and "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr and "ignored" not in full.stderr
    gone = subprocess.run(["bash", "-c", f"{command} | true; exit ${{PIPESTATUS[0]}}"],
                          capture_output=True, text=True, check=False)
    assert gone.returncode == 0 and "pipe" not in gone.stderr.lower()


def test_output_in_another_encoding():
    command = f"{sys.executable} -m models.run --max-new-tokens 3 < /dev/null"
    plain = subprocess.run(f"PYTHONIOENCODING=ascii {command} --prompt é", shell=True,
                           capture_output=True, text=True)
    assert plain.returncode == 2 or plain.stdout.startswith("?")
