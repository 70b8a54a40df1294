"""Runs a model whose matrices and embedding are codes in blocks, as a Q4_K_M file has them, on a
GPU: logits of cpu_numpy, and no byte more than the plan says. It runs where
`--kernelyard-gpu-report` asks for it."""

from dataclasses import replace

import numpy as np
import pytest
from format_models import REGISTRY, random_model

from core.ir.examples import ExampleInputs
from core.ops.quantized.block_linear import FORMS, random_blocks
from core.ops.quantized.layouts import BlockLayout
from models.architectures.tensors import EMBEDDING
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions
from models.plan import make_plan

LOGITS, MEMORY = 1e-4, 0.03  # as parts of the largest logit, of the plan
IDS = [3, 0, 639, 5, 5, 77, 300, *range(20, 50)]


def in_blocks(tied):
    """Return a checkpoint with Q4_K matrices, Q6_K ones for values and the embedding."""
    made, rng = random_model(dim=1024, hidden=1024, heads=16, kv_heads=4, vocab=8192,
                             tied=tied), ExampleInputs(np.random.default_rng(7))
    arrays, quantized = {}, {}
    for name, array in made.arrays.items():
        if array.ndim == 1:
            arrays[name] = array
            continue
        kind = "q6_k" if name == EMBEDDING or "v_proj" in name else "q4_k"
        quantized[name] = layout = BlockLayout(*FORMS[kind])
        parts, specs = random_blocks(rng, *array.shape, kind), layout.parts(*array.shape)
        arrays.update({f"{name}.{part}": parts[part].astype(spec.dtype.numpy)
                       for part, spec in specs.items()})
    return replace(made, arrays=arrays, quantized=quantized)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("backend", ("cuda_cupy", "cuda_pycuda"))
def test_a_table_in_codes_is_not_expanded(on_gpu, backend, tied):
    say, logits = on_gpu(backend), []
    checkpoint = in_blocks(tied)
    device, before = REGISTRY.backend(backend).allocator, 0
    for each in ("cpu_numpy", backend):
        options, before = LoadOptions(each, dtype="f32", chunk=16), device.stats.allocated
        with open_checkpoint(checkpoint, options, REGISTRY) as model:
            logits.append(np.array(model.logits(IDS)))
            taken = device.stats.allocated - before
    error = float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())
    plan = make_plan(checkpoint, LoadOptions(backend, dtype="f32", chunk=16), REGISTRY)
    codes = sum(a.nbytes for a in checkpoint.arrays.values())
    say(f"logits within {error:.1e} of the largest; weights {codes / 2**20:.1f} MiB, taken "
        f"{taken / 2**20:.1f}")
    assert error < LOGITS and not any("expanded" in note for note in checkpoint.notes)
    assert plan["at_context"]["weights"] < 1.001 * codes  # the table of rope
    assert codes < taken <= (1 + MEMORY) * plan["at_context"]["total"] < 3 * codes
