"""models.plan: predicts before loading what is allocated, and reads no weights."""

import gc
import json

import pytest

import models
from core.errors import AllocationError
from core.installed.registry import default_registry
from core.tensor.dtype import as_dtype
from core.tensor.host import HostAllocator
from models import __main__ as cli
from models import plan, run
from models.checkpoints import base
from models.checkpoints.base import read_checkpoint
from models.checkpoints.gguf import reader as gguf
from models.checkpoints.random import abstract_checkpoint, random_checkpoint
from models.engine.options import LoadOptions
from models.plan import make_plan

REGISTRY = default_registry()
CASES = [("stories-llama2", {}), ("stories-llama3", {}),  # f32, and bf16 that is prepacked
         ("stories-qwen2", {"dtype": "f32"}), ("stories-llama3", {"kv_dtype": "i8"}),
         ("stories-llama2", {"quantize": "int8"}), ("stories-qwen2", {"quantize": "int4"}),
         ("stories-llama2", {"fusion": False, "kv_dtype": "f16", "chunk": 100})]


@pytest.mark.parametrize("backend", ["cpu_numpy", "cpu_numba,cpu_numpy"])
@pytest.mark.parametrize("name, options", CASES, ids=lambda c: "-".join(map(str, c.values()))
                         if isinstance(c, dict) else c)
def test_plan_is_what_is_allocated(backend, name, options):
    if backend != "cpu_numpy" and REGISTRY.unavailable("cpu_numba"):
        pytest.skip(str(REGISTRY.unavailable("cpu_numba")))
    stats = REGISTRY.backend("cpu_numpy").allocator.stats
    numba = (REGISTRY.backend("cpu_numba").allocator.stats,) if "numba" in backend else ()
    gc.collect()
    before = stats.total_allocations
    planned = make_plan(read_checkpoint(name, REGISTRY), LoadOptions(backend, **options), REGISTRY)
    assert stats.total_allocations == before
    held = sum(s.allocated for s in (stats, *numba))
    with models.load(name, backend=backend, **options) as model:
        session = model.session
        session.prefill([1] * session.max_context)  # in chunks, as long as the context
        taken = sum(s.allocated for s in (stats, *numba)) - held
        in_place = sum(a.nbytes for n, a in session.weights.arrays.items()
                       if (n, "cpu") in session.weights._tensors)
        at = planned["at_context"]
        assert at["total"] == pytest.approx(taken + in_place, rel=0.03)
        assert at["kv_cache"] == session.kv_bytes
        assert sum(w["bytes"] for w in planned["weights"]) == session.weights.nbytes
        assert planned["longest_context"] == model.config.max_positions


@pytest.mark.parametrize(("target", "extra"), [("llama2c", ["--version", "2"]), ("gguf", [])])
def test_quantised_files_are_planned_from_their_headers(target, extra, tmp_path, monkeypatch):
    """int8 llama2.c and Q8_0 GGUF: unpacking is left to loading."""
    from models import export
    if target == "gguf":
        pytest.importorskip("gguf", reason="GGUF tests need the extra: pip install '.[gguf]'")
    file = tmp_path / {"llama2c": "m.bin", "gguf": "m.gguf"}[target]
    assert export.main(["--model", "stories-llama2", "--to", target, "--quantize", "int8",
                        "--out", str(file), *extra, "--no-verify"]) == 0
    with models.load(file) as model:
        nbytes = model.session.weights.nbytes
    for module, name in ((gguf, "unpacked"), (gguf, "expand_blocks"),
                         (base, "expand_groups")):
        monkeypatch.setattr(module, name, _must_not_run)
    planned = make_plan(read_checkpoint(file, REGISTRY), LoadOptions(), REGISTRY)
    assert sum(w["bytes"] for w in planned["weights"]) == nbytes
    assert "made while loading" in {w["host"] for w in planned["weights"]}


def _must_not_run(*_):
    raise AssertionError("weights were unpacked to plan")


def test_shapes_need_no_memory():
    small = make_plan(random_checkpoint("qwen2.5-0.5b", "bf16", layers=1), LoadOptions(), REGISTRY)
    abstract = make_plan(abstract_checkpoint("qwen2.5-0.5b", "bf16", layers=1), LoadOptions(),
                         REGISTRY)
    def shapes(planned):  # random weights are made in host memory, those of a file are mapped
        rows = [(r["tokens"], r["kv_cache"], r["activations"]) for r in planned["contexts"]]
        forms = [(w["form"], w["tensors"], w["bytes"]) for w in planned["weights"]]
        return rows, forms, planned["prepacked"], planned["parameters"], planned["kv_cache"]
    assert shapes(small) == shapes(abstract)
    planned = make_plan(abstract_checkpoint("llama3.2-1b", "bf16"), LoadOptions(), REGISTRY)
    assert planned["parameters"] == 1_235_814_400  # as published, the head tied
    # 16 layers x 2 x 8 heads x 64, and one scale a head where int8
    assert planned["kv_bytes_per_token"] == {"f32": 65536, "f16": 32768, "bf16": 32768,
                                             "i8": 16384 + 16 * 2 * 8 * 4}
    assert planned["prepacked"] == [{"kernel": "cpu_numpy:linear_widened", "dtype": "f32",
                                     "device": "cpu", "bytes": 4 * (1_235_814_400 - 33 * 2048)}]


def test_longest_context_is_the_longest(monkeypatch):
    """Refuse one block more than the longest context."""
    allocator = REGISTRY.backend("cpu_numpy").allocator
    checkpoint = abstract_checkpoint("llama3.2-1b", "f32", layers=4)
    free = 3 << 30
    monkeypatch.setattr(type(allocator), "available", lambda self: free)
    found = make_plan(checkpoint, LoadOptions(), REGISTRY)["longest_context"]
    assert 0 < found < 131072 and found % 16 == 0
    totals = [make_plan(checkpoint, LoadOptions(max_context=n), REGISTRY)["at_context"]["total"]
              for n in (found, found + 16)]
    assert totals[0] <= free < totals[1]


def test_a_context_that_does_not_fit_is_refused_before_loading(monkeypatch, capsys):
    allocator = REGISTRY.backend("cpu_numpy").allocator
    monkeypatch.setattr(type(allocator), "available", lambda self: 1_000_000)
    before = allocator.stats.total_allocations
    with pytest.raises(AllocationError, match=r"needs 1\.\d MiB on cpu \(cpu_numpy\), 1\.0 MiB are "
                       r"free.* KV cache 1\.5 MiB for 512 tokens in f32; \d+ tokens would fit.*"
                       r"--max-context \d+, or --kv-dtype i8, or --quantize"):
        models.load("stories-llama2")
    assert allocator.stats.total_allocations == before
    assert run.main(["--model", "stories-llama2", "--prompt", "Once"]) == 2
    fits = int(capsys.readouterr().err.split("--max-context ")[1].split(",")[0])
    assert run.main(["--model", "stories-llama2", "--max-context", str(fits), "--json",
                     "--max-new-tokens", "2", "--prompt", "Once"]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert (stats["max_context"], stats["kv_dtype"]) == (fits, "f32") and stats["kv_cache_bytes"]
    assert plan.main([]) == 1
    assert "NO" in capsys.readouterr().out


@pytest.mark.skipif("cuda_cupy" not in REGISTRY.specs, reason="needs ./backends/cuda_cupy")
def test_a_backend_that_is_not_there_gets_an_estimate(monkeypatch):
    monkeypatch.setattr(REGISTRY, "backend", _without_cuda(REGISTRY.backend))
    found = make_plan(abstract_checkpoint("llama3.2-1b", "bf16"), LoadOptions("cuda_cupy"),
                      REGISTRY)
    assert found["unavailable"] == "no GPU" and found["free"] is None and found["fits"] is None
    assert found["activations_dtype"] == "bf16"  # the class says so without a device
    assert found["copied_to"] == {"cuda": 2 * 1_235_814_400 + 32 * 4}
    assert found["at_context"]["kv_cache"] == 4096 * 32768


def _without_cuda(opened):
    from core.errors import BackendError

    def backend(name):
        if name == "cuda_cupy":
            raise BackendError("no GPU")
        return opened(name)
    return backend


def test_command_line(capsys):
    assert cli.main(["plan", "--shape", "llama3.2-1b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["limit"] == 131072 and found["contexts"][-1]["tokens"] == 131072
    assert [as_dtype("int8" if k == "i8" else k) for k in found["kv_bytes_per_token"]]
    assert plan.main(["--model", "stories-llama3"]) == 0
    assert "longest context that fits: 2,048 of 2,048" in capsys.readouterr().out
    for wrong, says in ((["--stored", "f32"], "--stored goes with --shape"),
                        (["--max-context", "0"], "expected 1 to 512"),
                        (["--model", "nowhere"], "no model at"),
                        (["--backend", "cuda"], "unknown backend")):
        assert plan.main(wrong) == 2
        assert says in capsys.readouterr().err


def test_an_engine_without_room_for_one_sequence_is_told_what_to_lower(capsys, monkeypatch):
    monkeypatch.setattr(HostAllocator, "available", lambda self: 2 << 20)
    plan.main(["--model", "stories-llama2", "--backend", "cpu_numpy", "--max-num-seqs", "4"])
    said = " ".join(capsys.readouterr().out.split())
    assert "at once; fix: lower --max-context or --max-num-seqs" in said
