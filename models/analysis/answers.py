"""Saves answers: a model's logits, hidden states and greedy tokens for one prompt, in an .npz.

`ids` i32 [T], `logits` f32 [T,V], `tokens` i32 [N], `hidden` f32 [L+1,T,D]: the embedding, then the
output of each layer, the last one after the final norm (as transformers counts them); `header` is
JSON as bytes. No pickles.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError, OptionError, missing_packages
from core.tensor.tensor import Array
from core.verify.capsules.capsule import DAMAGE, write_arrays
from core.verify.capsules.npz import read_arrays
from core.verify.capsules.provenance import versions
from core.verify.trace import Trace
from models.engine.model import Model

FORMAT = "kernelyard golden 1"


@dataclass(frozen=True)
class Answers:
    """Holds one side's answers; `who` names it. `hidden` may be absent."""

    who: str
    ids: list[int]
    logits: Array
    tokens: list[int]
    hidden: Array | None = None

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the file. Raises InputError if it exists, unless `force`."""
        if path.exists() and not force:
            raise InputError(f"{path} exists; give another name, or --force to replace it")
        header = {"format": FORMAT, "who": self.who, "versions": versions()}
        arrays: dict[str, Array] = {
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
            "ids": np.array(self.ids, np.int32), "logits": self.logits.astype(np.float32),
            "tokens": np.array(self.tokens, np.int32)}
        if self.hidden is not None:
            arrays["hidden"] = self.hidden.astype(np.float32)
        write_arrays(path, arrays)

    @classmethod
    def read(cls, path: Path) -> Answers:
        """Read a file. Its header may be missing: `ids` and `logits` from elsewhere are enough.

        Raises InputError for anything but such a file.
        """
        if not path.is_file():
            raise InputError(f"{path}: there is no such file; expected `hf`, or an .npz that "
                             "--save wrote")
        try:
            a = read_arrays(path)
            who = json.loads(bytes(a["header"]).decode())["who"] if "header" in a else path.name
            ids, logits, tokens = a["ids"], a["logits"], a.get("tokens", np.empty(0, np.int32))
            if ids.ndim != 1 or ids.dtype.kind not in "iu" or logits.shape[:1] != ids.shape \
                    or logits.ndim != 2 or tokens.ndim != 1:
                raise ValueError(f"ids {ids.dtype}{list(ids.shape)}, logits {list(logits.shape)}, "
                                 f"tokens {list(tokens.shape)}; expected [T], [T,V] and [N]")
            return cls(str(who), ids.tolist(), logits, tokens.tolist(), a.get("hidden"))
        except DAMAGE as error:
            raise InputError(f"{path}: not usable saved logits ({type(error).__name__}: {error}); "
                             "expected an .npz with ids i32 [T] and logits f32 [T,V]") from None


def ours(model: Model, ids: list[int], tokens: int, who: str) -> Answers:
    """Return our own answers, with hidden states where fused kernels leave them visible."""
    trace = Trace()
    with model.session.observed(trace):
        logits = model.logits(ids)
    last = model.config.layers - 1
    names = ["embed", *(f"layers.{i}.mlp_residual" for i in range(last)), "norm"]
    seen = all(name in run.values for run in trace.runs for name in names)
    hidden = np.stack([np.concatenate([run.values[name].array.astype(np.float32)
                                       for run in trace.runs]) for name in names]) if seen else None
    generation = model.generate(ids, max_new_tokens=tokens)
    generation.stop_ids = frozenset()
    return Answers(who, list(ids), logits, generation.run().tokens, hidden)


def transformers_answers(folder: Path, ids: list[int], tokens: int) -> Answers:
    """Return the answers of transformers in float32.

    Raises OptionError without the extra `parity`, or where the model is no Hugging Face folder.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise missing_packages("`hf`", {str(error.name): "pip install 'kernelyard[parity]'"},
                               OptionError) from None
    if not (folder / "config.json").is_file():
        raise OptionError(f"`hf` needs a Hugging Face folder with config.json, found {folder}")
    talk: Any = transformers.utils.logging
    talk.disable_progress_bar()
    kinds: Any = transformers.AutoModelForCausalLM
    model = kinds.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True)
        generated = model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False,
                               eos_token_id=None, pad_token_id=0)[0, len(ids):].tolist()
    return Answers(f"transformers {transformers.__version__}", list(ids), out.logits[0].numpy(),
                  generated, np.stack([h[0].numpy() for h in out.hidden_states]))
