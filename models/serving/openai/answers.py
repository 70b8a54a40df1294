"""Writes what requests came to as the JSON bodies of OpenAI's completions and chats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.serving.http.logprobs import chat_logprobs, completion_logprobs, prompt_entries
from models.serving.http.tools import ToolText, tool_names
from models.serving.link.token_text import TokenTexts
from models.serving.openai.body import echoes_only
from models.serving.openai.tool_calls import offered_tools
from models.serving.request import CompletionOutput, RequestOutput
from models.tokenizers.chat_template import ChatTemplate


def completion_answer(body: Mapping[str, Any], outputs: Sequence[RequestOutput],
                      head: Mapping[str, Any], texts: TokenTexts,
                      decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """Return the answer to a completion of one or more prompts.

    head    the answer's `id`, `created`, `model` and what else stands before its choices
    decode  gives the text of a prompt of ids, where it is echoed
    """
    choices, dropped = list[dict[str, Any]](), echoes_only(body)
    n = body.get("n") or 1
    for i, output in enumerate(outputs):
        echoed = "" if not body.get("echo") else (
            output.prompt if output.prompt is not None else decode(output.prompt_token_ids))
        for one in output.outputs:
            ids = [] if dropped else one.token_ids
            choice = {"index": i * n + one.index, "text": echoed + ("" if dropped else one.text),
                      "logprobs": _completion_logprobs(body, output, one, ids, texts),
                      "finish_reason": one.finish_reason, "stop_reason": one.stop_reason}
            if body.get("return_token_ids"):
                choice |= {"token_ids": ids, "prompt_token_ids": output.prompt_token_ids}
            if body.get("prompt_logprobs") is not None:
                choice["prompt_logprobs"] = prompt_entries(output.prompt_logprobs)
            choices.append(choice)
    counted = usage(outputs)
    if dropped:
        counted |= {"completion_tokens": 0, "total_tokens": counted["prompt_tokens"]}
    return {**head, "object": "text_completion", "choices": choices, "usage": counted}


def _completion_logprobs(body: Mapping[str, Any], output: RequestOutput, one: CompletionOutput,
                         ids: Sequence[int], texts: TokenTexts) -> dict[str, Any] | None:
    if body.get("logprobs") is None:
        return None
    entries = list(one.logprobs or ())[:len(ids)]
    if body.get("echo"):
        return completion_logprobs([*output.prompt_token_ids, *ids],
                                   [*(output.prompt_logprobs or ()), *entries], body["logprobs"],
                                   texts)
    return completion_logprobs(ids, entries, body["logprobs"], texts)


def chat_answer(body: Mapping[str, Any], output: RequestOutput, head: Mapping[str, Any],
                texts: TokenTexts, template: ChatTemplate | None) -> dict[str, Any]:
    """Return the answer to a chat. `head` as in `completion_answer`; the template shows how calls
    of tools are written."""
    choices = list[dict[str, Any]]()
    for one in output.outputs:
        message, reason = _message(body, one, template)
        choice: dict[str, Any] = {
            "index": one.index, "message": message,
            "logprobs": None if one.logprobs is None else chat_logprobs(
                one.token_ids, one.logprobs, body.get("top_logprobs") or 0, texts),
            "finish_reason": reason, "stop_reason": one.stop_reason}
        if body.get("return_token_ids"):
            choice["token_ids"] = one.token_ids
        choices.append(choice)
    answer = {**head, "object": "chat.completion", "choices": choices, "usage": usage([output])}
    if body.get("prompt_logprobs") is not None:
        answer["prompt_logprobs"] = prompt_entries(output.prompt_logprobs)
    if body.get("return_token_ids"):
        answer["prompt_token_ids"] = output.prompt_token_ids
    return answer


def _message(body: Mapping[str, Any], one: CompletionOutput, template: ChatTemplate | None,
             ) -> tuple[dict[str, Any], str | None]:
    """Return the message of a text, with the calls of tools in it, and why it ended."""
    message: dict[str, Any] = {"role": "assistant", "content": one.text, "refusal": None}
    offered = offered_tools(body)
    if offered is None or template is None:
        return message, one.finish_reason
    tools = ToolText(tool_names(offered), template.choose(tools=True))
    before = tools.push(one.text)
    rest, calls = tools.finish()
    if not calls:
        return {**message, "content": before + rest}, one.finish_reason
    without_index = [{k: v for k, v in call.items() if k != "index"} for call in calls]
    return {**message, "content": before.strip() or None, "tool_calls": without_index}, "tool_calls"


def usage(outputs: Sequence[RequestOutput]) -> dict[str, Any]:
    """Count the tokens of a request, as OpenAI does."""
    prompt = sum(len(output.prompt_token_ids) for output in outputs)
    new = sum(len(one.token_ids) for output in outputs for one in output.outputs)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new,
            "prompt_tokens_details": {"cached_tokens": sum(o.cached_tokens for o in outputs)}}
