"""Reads Hugging Face folders with `quantization_config`: ours, GPTQ's and AWQ's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from core.errors import CheckpointError, ConfigError
from core.ops.quantized.layouts import QuantizedLayout, part_names
from core.reading import shown
from core.tensor.tensor import Array
from models.checkpoints.base import Weights, finite
from models.checkpoints.huggingface.gptq_awq import PARTS, PackedMatrix
from models.checkpoints.huggingface.writer import QUANT_METHOD
from models.checkpoints.lazy import LazyArrays, abstract
from models.json_reader import ConfigReader

_FULL = "take the model in full precision and pass --quantize"


def read_quantized(config: ConfigReader, arrays: Mapping[str, Array]) -> Weights:
    """Return the folder's arrays, those of quantised matrices as `part_names` names
    them.

    Raises ConfigError for a method, bits or a layout that is not read here, CheckpointError for
    tensors that do not belong together.
    """
    block = config.get("quantization_config", dict, {})
    if not block:
        return Weights(LazyArrays(arrays))
    reader = ConfigReader(block, f"{config.where}: quantization_config")
    method = reader.get("quant_method", str)
    if method == QUANT_METHOD:
        return _our_weights(reader, arrays)
    if method == "gptq":
        return _read_gptq(config, reader, arrays)
    if method == "awq":
        return _read_awq(reader, arrays)
    raise ConfigError(f"{reader.where}: quant_method is {shown(method)}, expected "
                      f"{QUANT_METHOD!r}, 'gptq' or 'awq'; {_FULL}")


def _our_weights(reader: ConfigReader, arrays: Mapping[str, Array]) -> Weights:
    bits, group = reader.size("bits"), reader.size("group_size")
    if bits not in (4, 8):
        raise ConfigError(f"{reader.where}: bits is {bits}, expected 4 or 8")
    layout = QuantizedLayout(bits, group, reader.get("has_zeros", bool))
    weights = Weights(LazyArrays(arrays))
    for name in [n.removesuffix(".codes") for n in arrays if n.endswith(".weight.codes")]:
        codes, *others = part_names(name)
        if arrays[codes].dtype != (np.int8 if bits == 8 else np.uint8):
            raise CheckpointError(f"{reader.where}: tensor {codes} is {arrays[codes].dtype}, which "
                                  f"holds no codes of {bits} bits; the file is damaged")
        for part in others[:1 + layout.has_zeros]:
            if part not in arrays:
                raise CheckpointError(f"{reader.where}: tensor {part} is missing; {name} has codes")
            if arrays[part].dtype != np.float32:
                raise CheckpointError(f"{reader.where}: tensor {part} is {arrays[part].dtype}, "
                                      "expected float32; the file is damaged")
            weights.arrays.defer({part: arrays[part]}, partial(_finite, part, arrays[part]))
        weights.quantized[name] = layout
    return weights


def _finite(name: str, stored: Array) -> tuple[Array]:
    return (finite(name, stored),)


def _read_gptq(config: ConfigReader, reader: ConfigReader, arrays: Mapping[str, Array]) -> Weights:
    layout = reader.get("checkpoint_format", str, "gptq")
    if layout not in ("gptq", "gptq_v2") or reader.get("is_marlin_format", bool, False):
        raise ConfigError(f"{reader.where}: checkpoint_format is {shown(layout)} or Marlin's, "
                          f"expected 'gptq' or 'gptq_v2'; {_FULL}")
    changed = [k for k in reader.get("dynamic", dict, {}) if not k.startswith("-:")]
    if changed:
        raise ConfigError(f"{reader.where}: dynamic gives {shown(changed[0])} settings of its own, "
                          f"expected the same bits and group_size everywhere; {_FULL}")
    weights = _read_packed(reader, arrays, awq=False, zero_offset=1 if layout == "gptq" else 0)
    # AutoGPTQ gave every matrix a bias, of zeros where the model has none
    if config.get("architectures", list, []) == ["LlamaForCausalLM"]:
        for key, kind in (("attention_bias", ".self_attn."), ("mlp_bias", ".mlp.")):
            if not config.get(key, bool, False):
                for name in [n for n in weights.arrays if n.endswith(".bias") and kind in n]:
                    if not weights.arrays[name].any():
                        del weights.arrays[name]
    return weights


def _read_awq(reader: ConfigReader, arrays: Mapping[str, Array]) -> Weights:
    version = reader.get("version", str, "gemm").lower()
    if version != "gemm":
        raise ConfigError(f"{reader.where}: version is {shown(version)}, expected 'gemm'; {_FULL}")
    reader.require("zero_point", True)
    return _read_packed(reader, arrays, awq=True, zero_offset=0)


def _read_packed(reader: ConfigReader, arrays: Mapping[str, Array], *, awq: bool,
                 zero_offset: int) -> Weights:
    bits, group = reader.get("bits", int), reader.get("group_size", int)
    if bits != 4:
        raise ConfigError(f"{reader.where}: bits is {bits}, only 4 can be read; {_FULL}")
    if group != -1 and not 0 < group < 2**31:
        raise ConfigError(f"{reader.where}: group_size is {group}, expected a positive integer, or "
                          "-1 for whole rows")
    weights, packed = Weights(), dict[str, dict[str, Array]]()
    for name, array in arrays.items():
        module, _, part = name.rpartition(".")
        if part in PARTS:
            packed.setdefault(module, {})[part] = array
        else:
            weights.arrays[name] = array
    for module, parts in packed.items():
        if reader.get("desc_act", bool, False) and not awq and "g_idx" not in parts:
            raise CheckpointError(f"tensor {module}.g_idx is missing, and desc_act says that it "
                                  "orders the groups; the folder is not whole: fetch it again")
        matrix, name = PackedMatrix(module, parts, group, awq), f"{module}.weight"
        if matrix.order is None:
            codes, scales, zeros = part_names(name)
            nibbles = abstract((matrix.n, -(-matrix.k // 2)), np.dtype(np.uint8))
            weights.arrays.defer({codes: nibbles}, partial(_codes, matrix))
            weights.arrays[scales] = matrix.float_scales()
            stored = matrix.zeros(zero_offset)
            if stored is not None:
                weights.arrays[zeros] = stored
            weights.quantized[name] = QuantizedLayout(4, matrix.group, stored is not None)
        else:
            weights.arrays.defer({name: abstract((matrix.n, matrix.k), np.dtype(np.float32))},
                                 partial(_expanded, matrix, zero_offset))
            if f"{module}.bias" in weights.arrays:  # linear takes both in one type
                bias = weights.arrays[f"{module}.bias"]
                weights.arrays[f"{module}.bias"] = bias.astype(np.float32)
    expanded = len(packed) - len(weights.quantized)
    if expanded:
        weights.notes.append(f"{expanded} of {len(packed)} matrices were expanded to f32: their "
                             "groups are in the order of activations (desc_act), which no kernel "
                             "takes")
    return weights


def _codes(matrix: PackedMatrix) -> tuple[Array]:
    return (matrix.codes(),)


def _expanded(matrix: PackedMatrix, zero_offset: int) -> tuple[Array]:
    return (matrix.expanded(zero_offset),)
