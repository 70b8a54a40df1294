"""Makes a tokenizer in which added tokens have other texts: their own are ordinary text in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from models.json_reader import ConfigReader
from models.tokenizers.json_tokenizer import JsonTokenizer
from models.tokenizers.sentencepiece_model import hiding
from models.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer


def renamed(tokenizer: JsonTokenizer | SentencePieceTokenizer, names: Mapping[str, str],
            ) -> JsonTokenizer | SentencePieceTokenizer:
    """Return a tokenizer with the same ids; `names` maps texts of added tokens to others. Raises
    TokenizerError where the library cannot make it."""
    where = tokenizer.settings.where
    if isinstance(tokenizer, JsonTokenizer):
        made = JsonTokenizer(_with_names(tokenizer.to_json(), names), ConfigReader({}, where), None)
        made.prefix_once = tokenizer.prefix_once
        return made
    proto = hiding(tokenizer.processor.serialized_model_proto(),
                   {i for i, t in tokenizer.added.items() if t.text in names})
    added = {str(i): replace(t, text=names.get(t.text, t.text)).as_json()
             for i, t in tokenizer.added.items()}
    return SentencePieceTokenizer(proto, ConfigReader(
        {"legacy": tokenizer.legacy, "add_prefix_space": tokenizer.prefix,
         "added_tokens_decoder": added}, where), None)


def _with_names(text: str, names: Mapping[str, str]) -> str:
    """Return tokenizer.json with other texts for added tokens; ids stay."""
    data = json.loads(text)
    model = data["model"]
    for token in data["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    vocab = model.get("vocab", {})
    model["vocab"] = ({names.get(k, k): i for k, i in vocab.items()} if isinstance(vocab, dict) else
                      [[names.get(k, k), score] for k, score in vocab])
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        model["merges"] = [m for m in model["merges"]
                           if (m.replace(" ", "") if isinstance(m, str) else "".join(m))
                           not in names]
    return json.dumps({**data, "post_processor": None})
