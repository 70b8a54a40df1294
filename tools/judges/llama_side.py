"""Does in llama.cpp what a judge asks for, in an environment that has llama-cpp-python and NumPy.

    python llama_side.py quantize IN.gguf OUT.gguf TYPE      a name of llama.cpp's: MOSTLY_Q4_K_M
    python llama_side.py logits FILE.gguf IDS.json OUT.npy   float32 [len(ids), vocabulary]
    python llama_side.py ids FILE.gguf TEXTS.json OUT.json   ids of each text, special tokens parsed

It imports nothing of kernelyard, so that both need not share an environment.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

THREADS = 2


def quantize(source: str, target: str, kind: str) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{kind}")
    params.nthread = THREADS
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    if code:
        sys.exit(f"llama_model_quantize returned {code}")


def load(path: str, *, vocabulary_only: bool = False) -> Any:  # noqa: ANN401 - a pointer
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = vocabulary_only
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    return model


def logits(path: str, ids_file: str, target: str) -> None:
    """Write the logits after each id, with attention and its cache in float32."""
    ids, model = json.loads(Path(ids_file).read_text()), load(path)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(64, len(ids))
    params.n_threads = params.n_threads_batch = THREADS
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = []
    for token in ids:
        batch = llama_cpp.llama_batch_get_one((ctypes.c_int32 * 1)(token), 1)
        if llama_cpp.llama_decode(context, batch):
            sys.exit("llama_decode failed")
        rows.append(np.array(np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (size,))))
    np.save(target, np.stack(rows))


def ids(path: str, texts_file: str, target: str) -> None:
    model = load(path, vocabulary_only=True)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    found = []
    for text in json.loads(Path(texts_file).read_text(encoding="utf-8")):
        raw = text.encode()
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(vocabulary, raw, len(raw), room, len(room), False, True)
        if count < 0:
            sys.exit(f"llama_tokenize needs {-count} ids for {text!r}")
        found.append(list(room[:count]))
    Path(target).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    {"quantize": quantize, "logits": logits, "ids": ids}[sys.argv[1]](*sys.argv[2:])
