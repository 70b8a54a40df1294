"""Our own quantised Hugging Face folders: which arrays of the file are parts of a matrix."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import CheckpointError, ConfigError
from core.tensor import Array
from core.weights import QuantizedLayout, part_names
from models.config import ConfigReader
from models.formats.hf_writer import QUANT_METHOD


def read_quantized_layouts(config: ConfigReader, arrays: Mapping[str, Array],
                           ) -> dict[str, QuantizedLayout]:
    """Layouts by matrix name; none without `quantization_config`. Raises ConfigError for another
    method or damaged numbers, CheckpointError for a matrix of which a part is missing."""
    block = config.get("quantization_config", dict, {})
    if not block:
        return {}
    reader = ConfigReader(block, f"{config.where}: quantization_config")
    method = reader.get("quant_method", str)
    if method != QUANT_METHOD:
        raise ConfigError(f"{reader.where}: quant_method is {method!r}, only {QUANT_METHOD!r} can "
                          "be read here; take the model in full precision and pass --quantize")
    bits, group = reader.size("bits"), reader.size("group_size")
    if bits not in (4, 8):
        raise ConfigError(f"{reader.where}: bits is {bits}, expected 4 or 8")
    layout = QuantizedLayout(bits, group, reader.get("has_zeros", bool))
    matrices = [n.removesuffix(".codes") for n in arrays if n.endswith(".weight.codes")]
    for name in matrices:
        _, *others = part_names(name)
        for part in others[:1 + layout.has_zeros]:
            if part not in arrays:
                raise CheckpointError(f"{config.where}: tensor {part} is missing; {name} has codes")
    return dict.fromkeys(matrices, layout)
