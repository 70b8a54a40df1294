"""Converts weights between the file and the graph: dtypes, and quantising while loading."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from core.ops.quantized.layouts import Layout, QuantizedLayout, part_names, stored_parts
from core.ops.quantized.quantize import Quantized
from core.plan.weights import Progress, WeightStore
from core.tensor.dtype import DType, as_dtype
from core.tensor.tensor import Array
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.mapped import drop_pages
from models.checkpoints.quantization import Quantization

Cast = Callable[[Array, np.dtype[Any]], Array]
Quantize = Callable[[Quantization, Array], Quantized]


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    return array.astype(dtype)


def needs_cast(array: Array, activations: DType) -> bool:
    """Return whether kernels for `activations` do not take this weight: a wider one, or the other
    16-bit type."""
    return activations.itemsize == 2 and as_dtype(array.dtype) != activations


def convert(arrays: Mapping[str, Array], quantized: Mapping[str, Layout],
            activations: DType, progress: Progress, cast: Cast = cast,
            leave: Collection[str] = ()) -> dict[str, Array]:
    """Convert the weights that need it, except those to `leave`. Narrower ones, and the parts of
    quantised ones, stay as they are stored."""
    parts = stored_parts(quantized)
    chosen = [n for n, a in arrays.items() if n not in parts and n not in leave
              and needs_cast(a, activations)]
    result = dict(arrays)
    total, done = sum(arrays[n].nbytes for n in chosen), 0
    for name in chosen:
        result[name] = cast(arrays[name], activations.numpy)
        drop_pages(arrays[name])
        done += arrays[name].nbytes
        progress(f"converting to {activations}", done, total)
    return result


def choose_weights(names: Iterable[str], quantized: Mapping[str, Layout],
                   quantization: Quantization | None, tied: bool) -> list[str]:
    """Return the projections and the output head, or those of them that are to be quantised; a
    tied head too, which has no tensor of its own. Matrices that are quantised in the file stay as
    they are there. Raises OptionError for a pattern that matches nothing."""
    head = [HEAD] if tied and not {HEAD, EMBEDDING} & quantized.keys() else []
    return [] if quantization is None else quantization.choose(
        [n for n in names if n.endswith("_proj.weight") or n == HEAD] + head)


def quantize_weights(arrays: Mapping[str, Array], quantized: Mapping[str, Layout],
                     quantization: Quantization | None, tied: bool, progress: Progress,
                     quantize: Quantize = Quantization.apply) -> WeightStore:
    """Quantise what `choose_weights` chooses, one tensor after another, and let go of each that
    lies in a mapped file. A tied head is quantised from the embedding, which stays for the look-up.
    Raises as `choose_weights`."""
    result, layouts = dict(arrays), dict(quantized)
    chosen = choose_weights(result, layouts, quantization, tied)
    if tied and HEAD in chosen:
        result[HEAD] = result[EMBEDDING]
    total, done = sum(result[n].nbytes for n in chosen), 0
    for name in chosen:
        assert quantization is not None  # it has chosen
        weight = result.pop(name)
        q = quantize(quantization, weight)
        drop_pages(weight)
        result.update({part: a for part, a in zip(part_names(name), (q.codes, q.scales, q.zeros),
                                                  strict=True) if a is not None})
        layouts[name] = QuantizedLayout(q.bits, q.group_size, q.zeros is not None)
        done += weight.nbytes
        progress(f"quantising to {quantization.precision}", done, total)
    return WeightStore(result, layouts, progress)
