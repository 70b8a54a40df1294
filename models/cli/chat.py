"""Hold an interactive conversation, by the model's own chat template."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from core.errors import OptionError, PromptError, TokenizerError
from models.checkpoints.generation import OFF
from models.cli.command import interrupted
from models.cli.console import tell
from models.engine.generate import Generation
from models.engine.model import Model
from models.engine.model_sampling import OPTIONS, sampling_line, settle_sampling
from models.serving.conversation import ConversationEncoder
from models.serving.prompt import checked_text
from models.tokenizers.base import NoTokenizer, choose_template
from models.tokenizers.chat_template import Message

LONGEST = 1 << 22  #: characters of a message
HELP = ("type a message; /reset forgets the conversation, /exit or Ctrl-D ends it, "
        "Ctrl-C stops a reply")


def chat(model: Model, sampling: dict[str, Any], started: Callable[[], None],
         name: str | None = None, *, escape: bool = True) -> None:
    """Read messages from standard input until it ends; `started` is called once the model is known
    to chat. `name`: a chat template of the model, or a file. Without `escape`, messages may write
    control tokens. Raises OptionError without a template, PromptError at the end where every
    message failed.
    """
    if isinstance(model.tokenizer, NoTokenizer):
        raise OptionError(f"--chat needs text: {model.tokenizer.reason}")
    template = choose_template(model.tokenizer, name)
    if template is None:
        raise OptionError(f"{model.path} has no chat template (chat_template in "
                          "tokenizer_config.json): it is a base model; use --prompt, or give one "
                          "with --chat-template FILE")
    template.choose()
    encoder = ConversationEncoder(model.tokenizer, template, escape=escape)
    given = {name: sampling.get(name) for name in OFF}
    settled = settle_sampling(sampling.get("sampling", OPTIONS), given, model.generation)
    started()
    tell(sampling_line(*settled))
    if model.generation.ignored:
        tell(f"note: {model.generation.where} has keys that are not known and have no effect: "
             f"{', '.join(model.generation.ignored)}")
    messages: list[Message] = []
    failed = False
    print(HELP, file=sys.stderr)
    while True:
        try:
            text = _line().strip()
        except PromptError as error:
            tell(f"error: {error}")
            continue
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            text = "/exit"
        if text == "/exit":
            if failed and not messages:
                raise PromptError("no message of this chat was answered")
            return
        if text == "/reset":
            messages.clear()
        elif text:
            try:
                asked: list[Message] = [*messages, {"role": "user", "content": checked_text(text)}]
                generation = _reply(model, encoder, asked, sampling)
            except (PromptError, TokenizerError) as error:  # of this message: the next may do
                tell(f"error: {error}")
                failed = True
                continue
            messages[:] = asked
            interrupted(generation, lambda piece: print(piece, end="", flush=True))
            print()
            if generation.finish_reason == "length":
                print("(cut: --max-new-tokens or the context was reached)", file=sys.stderr)
            messages.append({"role": "assistant", "content": generation.text})


def _line() -> str:
    """Return a line of standard input. Raises EOFError at its end, PromptError for a line that is
    too long, of which no more than a part is kept."""
    if sys.stdin.isatty():
        text = input("> ")
    elif not (text := sys.stdin.readline(LONGEST + 1)):
        raise EOFError
    if len(text.rstrip("\n")) <= LONGEST:
        return text
    while not sys.stdin.isatty() and text and not text.endswith("\n"):
        text = sys.stdin.readline(LONGEST)
    raise PromptError(f"the message has more than {LONGEST:,} characters; give a shorter one")


def _reply(model: Model, encoder: ConversationEncoder, messages: list[Message],
           sampling: dict[str, Any]) -> Generation:
    """Start the reply. While the conversation fills the context, its oldest turn is forgotten."""
    while True:
        ids = encoder.encode(messages)
        if len(ids) < model.session.max_context or len(messages) < 3:
            return model.generate(ids, reuse=True, **sampling)
        print("(the context is full: the oldest turn is forgotten)", file=sys.stderr)
        del messages[:2]
