"""Decides whether the embedding's table stays in codes: where no kernel looks rows up in them, it
is expanded, and a tied head keeps the codes for its product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from core.errors import BackendError
from core.ir.graph import Graph
from core.ops.quantized.layouts import Layout, expand, part_names
from core.plan.lower import make_call
from core.plan.policy import KernelPolicy
from core.plugins.kernel import Call, Kernel
from core.tensor.dtype import DType, i32
from core.tensor.tensor import Array, TensorSpec
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.lazy import abstract

#: makes the table of a layout, its parts in order and its columns
Expand = Callable[[Layout, Sequence[Array | None], int], Array]


def why_expanded(policy: KernelPolicy, layout: Layout, shape: tuple[int, int], activations: DType,
                 chunk: int) -> str | None:
    """Return None if kernels on the first backend's device look rows up in these codes, one token
    and `chunk` at a time; else the reason why not."""
    name = policy.backends[0]
    try:
        device = policy.primary.allocator.device
    except BackendError:  # models.plan estimates without it
        return f"{name} cannot be asked here"

    def elsewhere(kernel: Kernel) -> str | None:
        found = policy.registry.backend(kernel.backend).allocator.device
        return None if found == device else f"runs on {found}, activations are on {device}"
    for tokens in (1, chunk):
        kernel, refused = policy.choose(_call(layout, shape, activations, tokens), "embed",
                                        elsewhere)
        if kernel is None:
            said = "; ".join(f"{k}: {reason}" for k, reason in refused)
            return f"{layout.lookup}: {said or f'{name} has no kernel'}"
    return None


def _call(layout: Layout, shape: tuple[int, int], activations: DType, tokens: int) -> Call:
    g, specs = Graph("look-up"), layout.parts(*shape)
    parts = [g.weight(n, specs[n]) if n in specs else None for n in layout.names]
    g.add(layout.lookup, g.input("ids", TensorSpec((tokens,), i32)), *parts, name="embed",
          **layout.attrs, columns=shape[1], out_dtype=activations.short)
    node = g.nodes[0]
    return make_call(node.op, node.inputs, node.attrs, node.name)


def expand_table(arrays: Mapping[str, Array], quantized: Mapping[str, Layout], columns: int, *,
                 tied: bool, expand: Expand = expand) -> tuple[dict[str, Array], dict[str, Layout]]:
    """Return arrays and layouts with the embedding in float32 in place of its codes."""
    layouts = dict(quantized)
    layout = layouts.pop(EMBEDDING)
    names = part_names(EMBEDDING, layout)
    parts = [arrays.get(n) for n in names]
    result = {n: a for n, a in arrays.items() if n not in names}
    result[EMBEDDING] = expand(layout, parts, columns)
    if tied:
        layouts[HEAD] = layout
        result.update({n: part for n, part in zip(part_names(HEAD, layout), parts, strict=True)
                       if part is not None})
    return result, layouts


def abstract_expand(layout: Layout, parts: Sequence[Array | None], columns: int) -> Array:
    """Return the shape of `expand`'s result, without memory."""
    rows = next(len(p) for p in parts if p is not None)
    return abstract((rows, columns), np.dtype(np.float32))
