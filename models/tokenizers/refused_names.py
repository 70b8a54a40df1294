"""Lists the pre-tokenizers that llama.cpp knows and that are refused here, with the reason.

Their expressions could not be compared with a published tokenizer.json or with published ids. A
plugin that has done so can add a name with the hook `register_pretokenizers`.
"""

from __future__ import annotations

_UNCHECKED = "its expression was not compared with the published tokenizer"
_GUESS = ("it is llama.cpp's guess for files of before May 2024, which fits no published "
          "tokenizer; convert the model again, from its Hugging Face folder, with a current "
          "llama.cpp")
_ENDS = "it adds separators around a text, which is for embeddings of texts"
_SPACES = "its merges run over whole lines and not over bytes"
_CODE = "llama.cpp splits it by code of its own, not by an expression"
REFUSED: dict[str, str] = {
    "": f"the file names none, and `default` is no name: {_GUESS}",
    "default": _GUESS,
    **dict.fromkeys(("jina-v1-en", "jina-v2-code", "roberta-bpe"), _ENDS),
    **dict.fromkeys(("gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"), _SPACES),
    **dict.fromkeys(("kimi-k2", "afmoe"), _CODE),
    **dict.fromkeys((
        "minicpm5", "deepseek-llm", "spark2_5", "youtu", "jais-2", "stablelm2", "chatglm-bpe",
        "glm4", "glm5", "exaone-moe", "chameleon", "granite-embed-multi-97m", "tiny_aya",
        "cohere2moe", "superbpe", "bailingmoe", "bailingmoe2", "llada-moe", "hunyuan", "hy_v4",
        "joyai-llm", "ufakzeka", "grok-2", "laguna", "minimax-m2", "solar-open", "mellum2",
        "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "modern-bert"), _UNCHECKED),
}
