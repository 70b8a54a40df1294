"""Runs kernelyard's models by `llm`, in its own process: no server, no key."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import llm
from pydantic import Field

if TYPE_CHECKING:
    from models import Generation, Model

R = TypeVar("R")
#: options of a prompt that decide how the model is loaded, and how the next token is sampled
LOADING = ("backend", "dtype", "quantize", "max_context", "threads")
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")


class Options(llm.Options):
    """Holds what a user may set with -o; what is not set is as the model's files say."""

    model: str | None = Field(None, description="a model folder or file, or an id of the Hugging "
                                                "Face hub")
    backend: str | None = Field(None, description="where the kernels come from, such as "
                                                  "cpu_numba,cpu_numpy")
    dtype: str | None = Field(None, description="dtype of the activations: f32, f16 or bf16")
    quantize: str | None = Field(None, description="quantise while loading, such as int8")
    max_context: int | None = Field(None, description="tokens that the KV cache holds")
    threads: int | None = Field(None, description="CPU threads")
    chat_template: str | None = Field(None, description="one of the model's templates by name, or "
                                                        "a Jinja file")
    max_tokens: int | None = Field(None, description="the most new tokens (default: until the "
                                                     "model ends, or the context is full)")
    temperature: float | None = Field(None, description="0 is greedy")
    top_p: float | None = Field(None, description="1 is off")
    top_k: int | None = Field(None, description="0 is off")
    min_p: float | None = Field(None, description="0 is off")
    repetition_penalty: float | None = Field(None, description="1 is off")
    seed: int | None = Field(None, description="fixes what is sampled, on any backend")
    stop: str | None = Field(None, description="stop before this text")


class Kernelyard(llm.Model):
    """Answers prompts by one model, which stays loaded while the options that load it stay.

    name  a model that ships with kernelyard, None for the one that -o model names
    """

    can_stream = True
    Options = Options

    def __init__(self, name: str | None) -> None:
        self.model_id = "kernelyard" if name is None else f"kernelyard/{name}"
        self.name = name
        self._loaded: tuple[tuple[Any, ...], Model] | None = None

    def execute(self, prompt: llm.Prompt, stream: bool, response: llm.Response,
                conversation: llm.Conversation | None) -> Iterator[str]:
        """Yield the answer's text as it comes. Raises llm.ModelError for what cannot be served."""
        generation = told(lambda: self._start(prompt))
        if stream:
            pieces = iter(generation)
            while (piece := told(lambda: next(pieces, None))) is not None:
                yield piece
        else:
            yield told(generation.run).text
        response.set_usage(input=len(generation.prompt_ids), output=len(generation.tokens))

    def _start(self, prompt: llm.Prompt) -> Generation:
        options = prompt.options
        model = self._model(options)
        ids = encoded(model, messages_of(prompt), options.chat_template)
        room = max(1, model.session.max_context - len(ids))
        given = {name: getattr(options, name) for name in SAMPLING}
        return model.generate(
            ids, max_new_tokens=room if options.max_tokens is None else options.max_tokens,
            sampling="model", stop=() if options.stop is None else options.stop, reuse=True,
            **given)

    def _model(self, options: Options) -> Model:
        import models  # `llm` imports every plugin: this one only when it is used
        from core.errors import OptionError
        if self.name is not None and options.model is not None:
            raise OptionError(f"-o model goes with -m kernelyard; {self.model_id} is a model")
        name = self.name or options.model
        if name is None:
            raise OptionError("-m kernelyard needs -o model PATH, a folder, a file, or an id of "
                              f"the Hugging Face hub; or take one of {', '.join(shipped())}")
        given = {key: value for key in LOADING if (value := getattr(options, key)) is not None}
        wanted = (name, *given.items())
        if self._loaded is None or self._loaded[0] != wanted:
            if self._loaded is not None:
                self._loaded[1].close()
            self._loaded = None
            self._loaded = wanted, models.load(name, **given)
        return self._loaded[1]


def told(work: Callable[[], R]) -> R:
    """Return what the work returns; kernelyard's errors become llm's, which prints them."""
    from core.errors import KernelyardError
    try:
        return work()
    except KernelyardError as error:
        raise llm.ModelError(str(error)) from error


def messages_of(prompt: llm.Prompt) -> list[dict[str, str]]:
    """Return the conversation up to this prompt, oldest first, as roles and texts."""
    return [{"role": message.role,
             "content": "".join(getattr(part, "text", "") for part in message.parts)}
            for message in prompt.messages]


def encoded(model: Model, messages: list[dict[str, str]], template: str | None) -> list[int]:
    """Return the ids of a conversation, by the model's template. A base model, which has none,
    goes on with a single text. Raises OptionError for more than that."""
    from core.errors import OptionError
    from models.serving.conversation import ConversationEncoder
    from models.tokenizers.base import choose_template
    chosen = choose_template(model.tokenizer, template)
    if chosen is not None:
        return ConversationEncoder(model.tokenizer, chosen).encode(messages)
    if [message["role"] for message in messages] != ["user"]:
        raise OptionError(f"{model.name} has no chat template: it is a base model, which goes on "
                          "with one text; leave out the conversation and the system prompt, or "
                          "give -o chat_template FILE")
    return model.encode(messages[0]["content"])


def shipped() -> list[str]:
    """Return the names of the models that ship with kernelyard, without importing it."""
    found = importlib.util.find_spec("models")
    places = found.submodule_search_locations if found is not None else None
    return sorted(path.name for place in places or () for path in Path(place, "shipped").glob("*")
                  if path.is_dir() and not path.name.startswith("_"))


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    """Offer `kernelyard`, which takes any model, and each one that ships with it."""
    register(Kernelyard(None))
    for name in shipped():
        register(Kernelyard(name))
