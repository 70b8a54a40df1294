"""Losses: measures what quantising or rounding weights does to them and to the model's logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from core.errors import OptionError
from core.installed.registry import Registry
from core.ops.quantized.layouts import stored_parts
from core.plan.weights import Progress, no_progress
from core.tensor.dtype import as_dtype
from core.tensor.tensor import Array
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import Checkpoint
from models.checkpoints.quantization import Quantization
from models.checkpoints.quantize import quantize_weights
from models.checkpoints.source import Source
from models.engine.load import open_checkpoint
from models.engine.model import Model
from models.engine.options import LoadOptions
from models.json_reader import ConfigReader

TOKENS = 256  # of the text that the model makes where none is given
_LONGEST = 512  # tokens of a text computed as one sequence


def simulated(source: Source, dtype: str | None, quantization: Quantization | None,
              progress: Progress = no_progress) -> Checkpoint:
    """Return in memory what `--to hf` would write, and `--quantize` computes with."""
    c = source.checkpoint
    arrays = {n: a for n, a in c.arrays.items() if n != HEAD or not source.config.tied_embeddings}
    if dtype is not None:
        parts = stored_parts(c.quantized)
        arrays.update({n: a.astype(as_dtype(dtype).numpy) for n, a in arrays.items()
                       if n not in parts})
    store = quantize_weights(arrays, c.quantized, quantization, source.config.tied_embeddings,
                             progress)
    return replace(c, arrays=store.arrays, quantized=store.quantized)


def measure_losses(before: Checkpoint, after: Checkpoint, registry: Registry, *,
                   text: str | None = None, leave_out: bool = True,
                   progress: Callable[[str, int, int], None] = no_progress) -> dict[str, Any]:
    """Compare `after` with `before`, computed in float32 on cpu_numpy.

    text       what logits are compared on; by default `TOKENS` tokens that `before` itself samples
               (temperature 1, seed 0)
    leave_out  whether to try each changed tensor in its full precision, the others changed
    Returns bytes before and after, a row for each changed tensor (errors relative to the tensor and
    to the worst of its groups) and, over all tokens, KL(before || after) in nats and the share of
    equal greedy tokens.
    Raises OptionError for a text that is too short.
    """
    old, new = Source(before, registry), Source(after, registry)
    arrays = {n: _dense(old, n) for n in _names(old)}
    with _opened(before, arrays, registry) as model:
        sequences = _sequences(model, text)
        reference = [_log_probabilities(model, ids) for ids in sequences]
        rows, kept = [], {}
        for i, name in enumerate(arrays):
            changed = _dense(new, name)
            if not np.array_equal(changed, arrays[name]):
                rows.append(_tensor_row(name, arrays[name], changed, _group(after, name)))
                kept[name] = arrays[name].copy() if leave_out else None
                arrays[name][:] = changed  # the model reads these very arrays
            progress("comparing weights", i + 1, len(arrays))
        total = _divergence(model, sequences, reference)
        for i, row in enumerate(rows if leave_out else ()):
            array, full = arrays[row["tensor"]], kept[row["tensor"]]
            changed = array.copy()
            array[:] = full
            without = _divergence(model, sequences, reference)["kl_mean"]
            array[:] = changed
            row["kl_without"] = without
            row["kl_share"] = 1 - without / total["kl_mean"] if total["kl_mean"] else 0.0
            progress("leaving out tensors", i + 1, len(rows))
    return {"model": before.name, "tokens": sum(map(len, sequences)),
            "text": "given" if text is not None else "sampled by the model, temperature 1, seed 0",
            "bytes_before": sum(a.nbytes for a in before.arrays.values()),
            "bytes_after": sum(a.nbytes for a in after.arrays.values()), **total,
            "unchanged": len(arrays) - len(rows), "tensors": rows}


def _names(source: Source) -> list[str]:
    """Return the name of every tensor, and of the head: where it is tied, an array of its own for
    comparing."""
    return list(dict.fromkeys([*source.names, HEAD]))


def _dense(source: Source, name: str) -> Array:
    """Return float32, a copy that may be written to; rows of q and k in halves."""
    return np.array(source.array(name, pairs=False), np.float32, order="C")


def _opened(checkpoint: Checkpoint, arrays: dict[str, Array], registry: Registry) -> Model:
    data = {**checkpoint.config.data, "tie_word_embeddings": False}
    data.pop("quantization_config", None)
    dense = replace(checkpoint, arrays=arrays, quantized={}, interleaved=False, notes=[],
                    config=ConfigReader(data, checkpoint.config.where))
    return open_checkpoint(dense, LoadOptions(dtype="f32"), registry)


def _sequences(model: Model, text: str | None) -> list[list[int]]:
    longest = min(_LONGEST, model.session.max_context)
    if text is not None:
        ids = model.encode(text)
        if len(ids) < 2:
            raise OptionError("--report-text has fewer than 2 tokens: give a longer text")
        return [ids[i:i + longest] for i in range(0, len(ids), longest)]
    start = model.tokenizer.bos_id if model.tokenizer.bos_id is not None else 0
    found: list[list[int]] = []
    while (missing := TOKENS - sum(map(len, found))) > 0:
        tokens = model.generate([start], max_new_tokens=min(missing, longest - 1), temperature=1.0,
                                seed=len(found)).run().tokens
        found.append([start, *tokens])
    return found


def _log_probabilities(model: Model, ids: Sequence[int]) -> Array:
    """Return float64 [len(ids), V]."""
    logits = model.logits(ids).astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    found: Array = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return found


def _divergence(model: Model, sequences: list[list[int]], reference: list[Array],
                ) -> dict[str, float]:
    divergences, same = [], []
    for ids, expected in zip(sequences, reference, strict=True):
        found = _log_probabilities(model, ids)
        divergences.append((np.exp(expected) * (expected - found)).sum(axis=-1))
        same.append(found.argmax(-1) == expected.argmax(-1))
    kl = np.concatenate(divergences)
    return {"kl_mean": float(kl.mean()), "kl_max": float(kl.max()),
            "greedy_agreement": float(np.concatenate(same).mean())}


def _group(checkpoint: Checkpoint, name: str) -> int | None:
    layout = checkpoint.quantized.get(name) or (
        checkpoint.quantized.get(HEAD) if name == EMBEDDING else None)
    return layout.group_size if layout else None


def _tensor_row(name: str, full: Array, changed: Array, group: int | None) -> dict[str, Any]:
    """Frobenius norms; a group is a run of a row that shares a scale, or the whole row."""
    error, size = full.astype(np.float64) - changed, full.shape[-1]
    starts = np.arange(0, size, group or size)
    lost, whole = (np.sqrt(np.add.reduceat(np.square(a).reshape(-1, size), starts, axis=1))
                   for a in (error, full.astype(np.float64)))
    relative = lost / np.where(whole > 0, whole, 1)
    row, column = np.unravel_index(int(relative.argmax()), relative.shape)
    return {"tensor": name, "shape": list(full.shape), "group_size": group,
            "relative_error": float(np.linalg.norm(lost) / np.linalg.norm(whole)),
            "worst_group_error": float(relative[row, column]),
            "worst_group": [int(row), int(column)]}
