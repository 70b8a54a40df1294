"""Converts weights between the file and the graph: dtypes, and quantising while loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from core.ops.quantize import Quantized
from core.ops.quantized.layouts import Layout, QuantizedLayout, part_names, stored_parts
from core.plan.weights import Progress, WeightStore
from core.tensor.dtype import DType, as_dtype
from core.tensor.tensor import Array
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.quantization import Quantization

Cast = Callable[[Array, np.dtype[Any]], Array]
Quantize = Callable[[Quantization, Array], Quantized]


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    return array.astype(dtype)


def convert(arrays: Mapping[str, Array], quantized: Mapping[str, Layout],
            activations: DType, progress: Progress, cast: Cast = cast) -> dict[str, Array]:
    """Convert weights that kernels for `activations` do not take: wider ones, or the other 16-bit
    type. Narrower ones, and the parts of quantised ones, stay as they are stored."""
    parts = stored_parts(quantized)
    chosen = [n for n, a in arrays.items() if activations.itemsize == 2 and n not in parts
              and as_dtype(a.dtype) != activations]
    result = dict(arrays)
    total, done = sum(arrays[n].nbytes for n in chosen), 0
    for name in chosen:
        result[name] = cast(arrays[name], activations.numpy)
        done += arrays[name].nbytes
        progress(f"converting to {activations}", done, total)
    return result


def quantize_weights(arrays: Mapping[str, Array], quantized: Mapping[str, Layout],
                     quantization: Quantization | None, tied: bool, progress: Progress,
                     quantize: Quantize = Quantization.apply) -> WeightStore:
    """Quantise the projections and the output head, or those of them that are chosen. A tied
    head is quantised from the embedding, which stays for the look-up. Matrices that are quantised
    in the file stay as they are there. Raises OptionError for a pattern that matches nothing."""
    if quantization is None:
        return WeightStore(arrays, quantized, progress)
    result, layouts = dict(arrays), dict(quantized)
    head = [HEAD] if tied and not {HEAD, EMBEDDING} & layouts.keys() else []
    chosen = quantization.choose(
        [n for n in result if n.endswith("_proj.weight") or n == HEAD] + head)
    if head and HEAD in chosen:
        result[HEAD] = result[EMBEDDING]
    total, done = sum(result[n].nbytes for n in chosen), 0
    for name in chosen:
        weight = result.pop(name)
        q = quantize(quantization, weight)
        result.update({part: a for part, a in zip(part_names(name), (q.codes, q.scales, q.zeros),
                                                  strict=True) if a is not None})
        layouts[name] = QuantizedLayout(q.bits, q.group_size, q.zeros is not None)
        done += weight.nbytes
        progress(f"quantising to {quantization.precision}", done, total)
    return WeightStore(result, layouts, progress)
