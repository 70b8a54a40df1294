"""Makes good files of every format, for the fuzzer: the path to read, and the files to damage."""

import json
import shutil

SMALL = {"layers": 1, "dim": 32, "hidden": 32, "heads": 2, "kv_heads": 1, "positions": 16}


def folder_of(tmp, family="llama2", shape=None):
    from format_models import REGISTRY, random_model

    from core.plan.weights import no_progress
    from models.checkpoints.huggingface.tokenizer_files import write_tokenizer_files
    from models.checkpoints.huggingface.writer import write_huggingface
    from models.checkpoints.source import Source
    model = random_model(family, **(shape or SMALL))
    write_tokenizer_files(model, tmp)
    write_huggingface(Source(model, REGISTRY), tmp, "f32", None, no_progress)
    return tmp, model


def hf(*names):
    def make(tmp):
        folder_of(tmp, "qwen2" if "tokenizer.json" in names else "llama2")
        return tmp, [tmp / n for n in names]
    return make


def bare(write, family):
    def make(tmp):
        from format_models import REGISTRY, random_model

        from models.checkpoints.huggingface.tokenizer_files import write_tokenizer_files
        from models.checkpoints.source import Source
        model = random_model(family, **SMALL)
        write_tokenizer_files(model, tmp)
        write(Source(model, REGISTRY), tmp / "m.bin")
        return tmp / "m.bin", [tmp / "m.bin"]
    return make


def llama2c(version):
    def write(source, path):
        from core.plan.weights import no_progress
        from models.checkpoints.llama2c.writer import write_llama2c
        write_llama2c(source, path, version, no_progress)
    return bare(write, "llama2")


def kuiper(family, int8):
    def write(source, path):
        from core.plan.weights import no_progress
        from models.checkpoints.llama2c.kuiper_writer import write_kuiper
        write_kuiper(source, path, int8, no_progress)
    return bare(write, family)


def gguf(family, kind):
    def write(source, path):
        from core.plan.weights import no_progress
        from models.checkpoints.gguf.writer import write_gguf
        write_gguf(source, path, kind, no_progress)
    return bare(write, family)


def meta(*names):
    def make(tmp):
        from format_models import random_model
        from meta_files import write_meta
        write_meta(tmp, random_model("llama2", **SMALL), multiple_of=32, ffn_dim_multiplier=0.34)
        return tmp, [tmp / n for n in names]
    return make


def torch_bin(tmp):
    import torch
    from safetensors.numpy import load_file
    folder_of(tmp)
    arrays = load_file(tmp / "model.safetensors")
    torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, tmp / "pytorch_model.bin")
    (tmp / "model.safetensors").unlink()
    return tmp, [tmp / "pytorch_model.bin"]


def packed(method):
    def make(tmp):
        import numpy as np
        from safetensors.numpy import load_file, save_file
        shape = {**SMALL, "dim": 64, "hidden": 64}
        folder_of(tmp, shape=shape)
        arrays, rng = load_file(tmp / "model.safetensors"), np.random.default_rng(4)
        for name in [n for n in arrays if n.endswith("_proj.weight")]:
            n, k = arrays.pop(name).shape
            word = (k // 8, n) if method == "gptq" else (k, n // 8)
            module = name.removesuffix(".weight")
            arrays[f"{module}.qweight"] = rng.integers(-2**31, 2**31, word, np.int32)
            arrays[f"{module}.qzeros"] = rng.integers(-2**31, 2**31, (k // 32, n // 8), np.int32)
            arrays[f"{module}.scales"] = rng.uniform(0.01, 0.02, (k // 32, n)).astype(np.float16)
            if method == "gptq":
                order = np.arange(k, dtype=np.int32) // 32
                arrays[f"{module}.g_idx"] = rng.permutation(order) if "q_proj" in name else order
        save_file(arrays, tmp / "model.safetensors")
        config = json.loads((tmp / "config.json").read_text())
        config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
        if method == "gptq":
            config["quantization_config"]["desc_act"] = True
        (tmp / "config.json").write_text(json.dumps(config))
        return tmp, [tmp / "model.safetensors", tmp / "config.json"]
    return make


def ours(tmp):
    from format_models import REGISTRY

    from core.plan.weights import no_progress
    from models.checkpoints.base import read_checkpoint
    from models.checkpoints.huggingface.writer import write_huggingface
    from models.checkpoints.quantization import Quantization
    from models.checkpoints.source import Source
    plain = tmp / "plain"
    plain.mkdir()
    folder_of(plain)
    shutil.copy(plain / "tokenizer.model", tmp)
    write_huggingface(Source(read_checkpoint(plain, REGISTRY), REGISTRY), tmp, "f32",
                      Quantization.parse("int4", 16, (), ()), no_progress)
    return tmp, [tmp / "model.safetensors", tmp / "config.json"]


def index(tmp):
    from safetensors.numpy import load_file, save_file
    folder_of(tmp)
    arrays = load_file(tmp / "model.safetensors")
    (tmp / "model.safetensors").unlink()
    placed = {n: f"part-{i % 2}.safetensors" for i, n in enumerate(arrays)}
    for file in set(placed.values()):
        save_file({n: arrays[n] for n, f in placed.items() if f == file}, tmp / file)
    path = tmp / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": placed}))
    return tmp, [path, tmp / "part-0.safetensors"]


def capsule(tmp):
    import numpy as np

    from core.verify.capsules.capsule import Capsule, dtype_names
    inputs = {"x": np.ones((2, 8), np.float32), "weight": np.ones((4, 8), np.float32), "bias": None}
    out = {"out": np.full((2, 4), 8, np.float32)}
    Capsule("linear", {"out_dtype": None}, inputs, out, dtype_names({**inputs, **out}),
            {"kernel": "cpu_numpy:linear"}, "a test").write(tmp / "c.npz")
    return tmp / "c.npz", [tmp / "c.npz"]


def lock(tmp):
    from format_models import REGISTRY

    from core.conformance.rules.lock import PASSED, _packages
    found = REGISTRY.kernels("cpu_numpy")
    kernels = {}
    for kernel in found:
        kernels.setdefault(kernel.op, {})[kernel.id] = {"verdict": PASSED, "budget_used": 0.5}
    path = tmp / "kernels.lock"
    path.write_text(json.dumps({"format": 1, "packages": _packages(REGISTRY, found),
                                "kernels": kernels}))
    return path, [path]
