"""Weights between the file and the graph: dtype conversion and quantising while loading."""

from __future__ import annotations

from collections.abc import Callable

from core.dtype import DType, as_dtype
from core.errors import OptionError
from core.quantize import quantize
from core.tensor import Array
from core.weights import QuantizedLayout, WeightStore
from models.builder import EMBEDDING, HEAD

#: Called with what is being done, and the bytes done and in total.
Progress = Callable[[str, int, int], None]
BITS = {"int8": 8, "int4": 4}


def convert(arrays: dict[str, Array], activations: DType, progress: Progress | None,
            ) -> dict[str, Array]:
    """Convert weights that kernels for `activations` do not take: wider ones, or the other 16-bit
    type. Narrower ones stay as they are stored."""
    total, done = sum(a.nbytes for a in arrays.values()), 0
    for name, array in arrays.items():
        stored = as_dtype(array.dtype)
        if stored != activations and activations.itemsize == 2:
            arrays[name] = array.astype(activations.numpy)
        done += array.nbytes
        if progress is not None:
            progress(f"converting to {activations}", done, total)
    return arrays


def quantize_weights(arrays: dict[str, Array], scheme: str | None, tied: bool,
                     progress: Progress | None) -> WeightStore:
    """Quantise every projection and the output head. Embeddings, norms and biases stay as they are;
    a tied head is quantised from the embedding, which stays for the look-up."""
    if scheme is None:
        return WeightStore(arrays)
    if scheme not in BITS:
        raise OptionError(f"--quantize {scheme!r}: expected int8 or int4")
    chosen = [n for n in arrays if n.endswith("_proj.weight") or n == HEAD]
    if tied:
        arrays = {**arrays, HEAD: arrays[EMBEDDING]}
        chosen.append(HEAD)
    result, layouts = dict(arrays), {}
    total, done = sum(arrays[n].nbytes for n in chosen), 0
    for name in chosen:
        q = quantize(result.pop(name), BITS[scheme])
        result[f"{name}.codes"], result[f"{name}.scales"] = q.codes, q.scales
        if q.zeros is not None:
            result[f"{name}.zeros"] = q.zeros
        layouts[name] = QuantizedLayout(q.bits, q.group_size, q.zeros is not None)
        done += arrays[name].nbytes
        if progress is not None:
            progress(f"quantising to {scheme}", done, total)
    return WeightStore(result, layouts)

