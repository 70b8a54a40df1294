"""Reads Meta's original folders: params.json, consolidated.00.pth and more, tokenizer.model.

Each .pth of a larger model holds every tensor's part for one GPU (https://github.com/meta-llama/llama3,
llama/model.py): column-parallel matrices are split by rows of ours, row-parallel ones by columns,
norms are repeated. Rows of q and k are in pairs. One .pth is mapped; parts of several are joined in
memory, each tensor when it is first read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from core.errors import CheckpointError
from core.tensor.tensor import Array
from models.architectures.base import Architecture
from models.architectures.tensors import EMBEDDING, HEAD, NORM
from models.checkpoints.base import Checkpoint
from models.checkpoints.generation import stop_origins
from models.checkpoints.lazy import LazyArrays, abstract
from models.checkpoints.meta.params import read_params
from models.checkpoints.meta.torch_file import read_torch
from models.json_reader import ConfigReader
from models.tokenizers.base import Tokenizer, load_tokenizer
from models.tokenizers.build import build_tokenizer
from models.tokenizers.tiktoken_ranks import is_tiktoken, read_tiktoken

PARAMS, PARTS = "params.json", "consolidated.*.pth"
_TOP = {"tok_embeddings.weight": EMBEDDING, "norm.weight": NORM, "output.weight": HEAD}
_LAYER = {"attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
          "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
          "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
          "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm",
          "ffn_norm": "post_attention_layernorm"}
_STOPS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


class MetaFolder:
    """Reads Llama-2 and Llama-3 to 3.3 as Meta publishes them; text models in f32, f16 or bf16."""

    name, key = "Meta folder (params.json and consolidated.*.pth)", "meta"

    def recognises(self, path: Path) -> bool:
        return (path.is_dir() and (path / PARAMS).exists() and any(path.glob(PARTS))
                and not (path / "config.json").exists())

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        """Raises CheckpointError, ConfigError, TokenizerError, OptionError without torch."""
        if not path.is_dir():
            raise CheckpointError(f"{path} is a file, expected a folder; name the folder that "
                                  "holds it")
        parts = sorted(path.glob(PARTS))
        expected = [path / f"consolidated.{i:02}.pth" for i in range(max(1, len(parts)))]
        if parts != expected:
            found = ", ".join(p.name for p in parts) or "no consolidated.*.pth"
            raise CheckpointError(f"{path} has {found}, expected {expected[0].name} to "
                                  f"{expected[-1].name}; fetch it again")
        arrays = _join(parts, [_renamed(p, read_torch(p)) for p in parts],
                       ConfigReader.open(path / PARAMS).size("dim"))
        if EMBEDDING not in arrays:
            raise CheckpointError(f"{path}: tensor tok_embeddings.weight is missing")
        config = read_params(path / PARAMS, arrays.abstract(EMBEDDING).shape[0], HEAD not in arrays)
        tokenizer, stops = _tokenizer(path)
        return Checkpoint(path, config, arrays, tokenizer, tuple(stops), interleaved=True,
                          stops_from=stops)


def _renamed(path: Path, tensors: Mapping[str, Array]) -> dict[str, Array]:
    renamed = {}
    for name, array in tensors.items():
        if name == "rope.freqs":  # computed from params.json
            continue
        start, _, rest = name.partition(".")
        layer, _, kind = rest.partition(".")
        known = _LAYER.get(kind.removesuffix(".weight")) if start == "layers" else None
        if known and layer.isascii() and layer.isdigit() and kind.endswith(".weight"):
            renamed[f"model.layers.{layer}.{known}.weight"] = array
        elif name in _TOP:
            renamed[_TOP[name]] = array
        else:
            raise CheckpointError(f"{path}: tensor {name[:200]} belongs to no Llama text model "
                                  "in full precision; images, experts and quantised ones cannot "
                                  "be read")
    return renamed


def _join(paths: Sequence[Path], parts: Sequence[dict[str, Array]], dim: int) -> LazyArrays:
    for path, part in zip(paths, parts, strict=True):
        if strange := part.keys() ^ parts[0].keys():
            raise CheckpointError(f"{path.name} and {paths[0].name} in {path.parent} do not belong "
                                  f"together: only one of them holds {min(strange)}")
    joined = LazyArrays()
    for name in parts[0]:
        pieces = [part[name] for part in parts]
        if len({p.dtype for p in pieces} | {p.shape for p in pieces}) != 2:
            raise CheckpointError(f"{paths[0].parent}: parts of {name} are "
                                  f"{', '.join(f'{p.dtype}{list(p.shape)}' for p in pieces)}, "
                                  "expected equal ones; the files do not belong together")
        first = pieces[0]
        if len(pieces) == 1 or first.ndim == 1:
            if any(not np.array_equal(first, p) for p in pieces[1:]):
                raise CheckpointError(f"{paths[0].parent}: {name} is repeated in each file and "
                                      "differs; the files do not belong together")
            joined[name] = first
            continue
        # Llama-2 splits the embedding by columns, Llama-3 by rows of the vocabulary
        by_columns = (name.split(".")[-2] in ("o_proj", "down_proj")
                      or (name == EMBEDDING and first.shape[1] < dim))
        rows, columns = first.shape
        shape = (rows, columns * len(parts)) if by_columns else (rows * len(parts), columns)
        joined.defer({name: abstract(shape, first.dtype)},
                     partial(_concatenate, pieces, 1 if by_columns else 0))
    return joined


def _concatenate(pieces: Sequence[Array], axis: int) -> tuple[Array]:
    return (np.concatenate(pieces, axis),)


def _tokenizer(path: Path) -> tuple[Tokenizer, dict[int, str]]:
    """Read tokenizer.model in the folder or, as Llama-2 is fetched, beside it; and the stop ids."""
    folder = path if (path / "tokenizer.model").exists() else path.absolute().parent
    file = folder / "tokenizer.model"
    if is_tiktoken(file):
        vocabulary = read_tiktoken(file)
        stops = [i for i, token in enumerate(vocabulary.tokens) if token in _STOPS]
        return build_tokenizer(vocabulary, str(file)), stop_origins(("its text", stops))
    tokenizer = load_tokenizer(folder, "tokenizer.model")
    return tokenizer, stop_origins(("EOS of the tokenizer", [tokenizer.eos_id]))
