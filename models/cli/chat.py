"""Hold an interactive conversation, by the model's own chat template."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from core.errors import OptionError, PromptError
from models.checkpoints.generation import OFF
from models.cli.command import interrupted
from models.cli.console import tell
from models.engine.generate import Generation
from models.engine.model import Model
from models.engine.model_sampling import OPTIONS, sampling_line, settle_sampling
from models.serving.prompt import checked_text
from models.tokenizers.base import NoTokenizer, choose_template
from models.tokenizers.chat_template import ChatTemplate, Message

HELP = ("type a message; /reset forgets the conversation, /exit or Ctrl-D ends it, "
        "Ctrl-C stops a reply")


def chat(model: Model, sampling: dict[str, Any], started: Callable[[], None],
         name: str | None = None) -> None:
    """Read messages from standard input until it ends; `started` is called once the model is known
    to chat. `name`: a chat template of the model, or a file. Raises OptionError without a template.
    """
    if isinstance(model.tokenizer, NoTokenizer):
        raise OptionError(f"--chat needs text: {model.tokenizer.reason}")
    template = choose_template(model.tokenizer, name)
    if template is None:
        raise OptionError(f"{model.path} has no chat template (chat_template in "
                          "tokenizer_config.json): it is a base model; use --prompt, or give one "
                          "with --chat-template FILE")
    template.choose()
    given = {name: sampling.get(name) for name in OFF}
    settled = settle_sampling(sampling.get("sampling", OPTIONS), given, model.generation)
    started()
    tell(sampling_line(*settled))
    if model.generation.ignored:
        tell(f"note: {model.generation.where} has keys that are not known and have no effect: "
             f"{', '.join(model.generation.ignored)}")
    messages: list[Message] = []
    print(HELP, file=sys.stderr)
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        if text == "/exit":
            return
        if text == "/reset":
            messages.clear()
        elif text:
            try:
                asked: list[Message] = [*messages, {"role": "user", "content": checked_text(text)}]
                generation = _reply(model, template, asked, sampling)
            except PromptError as error:  # of this message: the next one may be better
                tell(f"error: {error}")
                continue
            messages[:] = asked
            interrupted(generation, lambda piece: print(piece, end="", flush=True))
            print()
            if generation.finish_reason == "length":
                print("(cut: --max-new-tokens or the context was reached)", file=sys.stderr)
            messages.append({"role": "assistant", "content": generation.text})


def _reply(model: Model, template: ChatTemplate, messages: list[Message],
           sampling: dict[str, Any]) -> Generation:
    """Start the reply. While the conversation fills the context, its oldest turn is forgotten."""
    while True:
        ids = model.tokenizer.encode(template.render(messages), special=True)
        if len(ids) < model.session.max_context or len(messages) < 3:
            return model.generate(ids, reuse=True, **sampling)
        print("(the context is full: the oldest turn is forgotten)", file=sys.stderr)
        del messages[:2]
