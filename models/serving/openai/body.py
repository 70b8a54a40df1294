"""Reads the JSON bodies of OpenAI's completions and chats, without a web framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.reading import shown
from models.serving.grammar.params import StructuredOutputsParams
from models.serving.openai.error import BodyError
from models.serving.openai.forms import asked_form
from models.serving.openai.tool_calls import calls_form
from models.serving.params import LOGPROBS, SamplingParams
from models.tokenizers.chat_template import ChatTemplate

#: fields that are not built, with values beside null that ask for nothing
UNBUILT: Mapping[str, tuple[object, ...]] = {
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar",
                     "guided_decoding_backend", "guided_whitespace_pattern", "grammar",
                     "json_schema"), ()),
    "use_beam_search": (False,), "length_penalty": (1, 1.0), "allowed_token_ids": (),
    "bad_words": ([],), "logits_processors": ([],), "logits_bias": (), "prompt_embeds": ([],),
    "truncate_prompt_tokens": (), "skip_special_tokens": (True,), "detokenize": (True,),
    "spaces_between_special_tokens": (True,), "typical_p": (1, 1.0), "mirostat": (0,),
    "dry_multiplier": (0, 0.0), "xtc_probability": (0, 0.0), "top_a": (0, 0.0), "tfs": (1, 1.0),
    "lora_request": (), "adapter": (), "vllm_xargs": ({},), "kv_transfer_params": ({},),
    "return_tokens_as_token_ids": (False,)}
_ID = re.compile("0|[1-9][0-9]{0,9}")  # as JSON writes an integer; two of them are two ids
#: what others call `structured_outputs`
STRUCTURED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar",
              "json_schema")
COMPLETION_UNBUILT = {**UNBUILT, "suffix": ("",), "best_of": (1,)}
CHAT_UNBUILT = {
    **UNBUILT, "functions": ([],), "function_call": ("none", "auto"), "modalities": (["text"],),
    "audio": (), "web_search_options": (), "reasoning_effort": (), "verbosity": ("medium",),
    "chat_template": (), "echo": (False,), "best_of": (1,), "mm_processor_kwargs": (),
    "media_io_kwargs": ()}

#: fields that SamplingParams has under the same name
SAMPLING = ("n", "temperature", "top_p", "top_k", "min_p", "seed", "stop_token_ids",
            "ignore_eos", "min_tokens", "presence_penalty", "frequency_penalty",
            "repetition_penalty", "include_stop_str_in_output", "priority", "prompt_logprobs")
MOST_TEXTS = 128  # of one request

_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(("echo", "return_token_ids", "add_special_tokens", "add_generation_prompt",
                     "continue_final_message", "stream"), (bool, "true or false")),
    **dict.fromkeys(("model", "cache_salt"), (str, "a text")),
    **dict.fromkeys(("response_format", "structured_outputs", "chat_template_kwargs"),
                    (dict, "an object")), "parallel_tool_calls": (bool, "true or false"),
    "tools": (list, "a list of objects"),
    "documents": (list, "a list of objects")}


def check_body(body: Mapping[str, Any], unbuilt: Mapping[str, tuple[object, ...]]) -> None:
    """Raise BodyError for a field that would change the answer and is not built, for a value of
    another type, and for too many texts."""
    for name, value in body.items():
        if name in unbuilt and value is not None and not any(
                value == off and type(value) is type(off) for off in unbuilt[name]):
            fix = "use structured_outputs" if name in STRUCTURED else "leave it out"
            raise BodyError(f"{name} is {shown(value)}, and that is not built; {fix}", name,
                            "unsupported_parameter")
        kind, expected = _KINDS.get(name, (object, ""))
        listed = value if kind is list and isinstance(value, list) else ()
        if value is not None and not (isinstance(value, kind) and all(
                isinstance(one, dict) for one in listed)):
            raise BodyError(f"{name} is {shown(value)}, expected {expected}", name)
    n = body.get("n")
    if isinstance(n, int) and n > MOST_TEXTS:
        raise BodyError(f"n is {n}, expected at most {MOST_TEXTS}", "n")


def completion_params(body: Mapping[str, Any], defaults: Mapping[str, Any]) -> SamplingParams:
    """Return how a body of /v1/completions is sampled: `defaults`, of SamplingParams' fields, hold
    where it says nothing, and their `stop` always. Raises OptionError."""
    tokens, logprobs = body.get("max_tokens"), body.get("logprobs")
    changed: dict[str, Any] = {}
    if body.get("echo") and logprobs is not None:
        changed["prompt_logprobs"] = max((n for n in (logprobs, body.get("prompt_logprobs"))
                                          if isinstance(n, int)), default=logprobs)
    tokens = 1 if echoes_only(body) else 16 if tokens is None else tokens
    return _params({**body, **changed}, defaults, tokens, logprobs)


def echoes_only(body: Mapping[str, Any]) -> bool:
    """Tell whether a completion asks for its prompt alone, mostly for the log-probabilities. One
    token is made then, and dropped."""
    return bool(body.get("echo")) and body.get("max_tokens") == 0


def chat_params(body: Mapping[str, Any], defaults: Mapping[str, Any],
                template: ChatTemplate | None) -> SamplingParams:
    """Return how a body of /v1/chat/completions is sampled, as `completion_params` does. The
    template shows how the model writes calls of tools."""
    tokens, top = body.get("max_completion_tokens"), body.get("top_logprobs")
    logprobs = body.get("logprobs")
    if logprobs is not None and type(logprobs) is not bool:
        raise BodyError(f"logprobs is {shown(logprobs)}, expected true or false; top_logprobs says "
                        "how many", "logprobs")
    if top is not None and not logprobs:
        raise BodyError("top_logprobs goes with logprobs: true", "top_logprobs")
    if top is not None and (type(top) is not int or not 0 <= top <= LOGPROBS):
        raise BodyError(f"top_logprobs is {shown(top)}, expected 0 to {LOGPROBS}", "top_logprobs")
    if body.get("add_special_tokens"):
        raise BodyError("add_special_tokens is true, and a chat template writes them itself; leave "
                        "it out", "add_special_tokens")
    return _params(body, defaults, body.get("max_tokens") if tokens is None else tokens,
                   (top or 0) if logprobs else None, calls_form(body, template))


def _params(body: Mapping[str, Any], defaults: Mapping[str, Any],
            max_tokens: Any, logprobs: Any,  # noqa: ANN401 - JSON
            calls: StructuredOutputsParams | None = None) -> SamplingParams:
    given = {name: body[name] for name in SAMPLING if body.get(name) is not None}
    stop, always = body.get("stop"), defaults.get("stop", ())
    own = (stop,) if isinstance(stop, str) else () if stop is None else stop
    return SamplingParams(**{**defaults, **given, "max_tokens": max_tokens, "logprobs": logprobs,
                             "stop": [*own, *always] if isinstance(own, (list, tuple)) else own,
                             "logit_bias": _bias(body.get("logit_bias")),
                             "structured_outputs": asked_form(body) or calls})


def _bias(bias: Any) -> Any:  # noqa: ANN401 - JSON; SamplingParams checks what is no object
    if not isinstance(bias, Mapping):
        return bias
    if wrong := [key for key in bias if not re.fullmatch(_ID, str(key))]:
        raise BodyError(f"logit_bias has the keys {shown(wrong)}, expected token ids, such as "
                        "\"10\"", "logit_bias")
    return {int(key): value for key, value in bias.items()}
