"""Prepare messages for a template, and choose the template of a conversation."""

import pytest

from core.errors import TokenizerError
from models.checkpoints.base import SHIPPED
from models.tokenizers.base import choose_template, load_tokenizer
from models.tokenizers.chat.messages import plain_messages
from models.tokenizers.chat_template import ChatTemplate

SHOW = "{% for m in messages %}{{ m }}{% endfor %}"


def render(messages, source=SHOW, **more):
    return ChatTemplate({"default": source}, {}).render(messages, **more)


def judged(messages, source=SHOW, **more):
    transformers = pytest.importorskip("transformers", reason="needs the extra parity")
    tokenizer = transformers.AutoTokenizer.from_pretrained(SHIPPED / "stories-qwen2")
    return tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, **more)


@pytest.mark.parametrize("message", [
    {"role": "assistant", "content": None, "tool_calls": None, "x": 0},
    {"role": "assistant", "content": "a", "reasoning": "r"},
    {"role": "assistant", "content": "a", "thinking": "t", "reasoning": None},
    {"role": "assistant", "content": "a", "reasoning_content": "c", "thinking": "t"},
    {"role": "user", "content": [{"type": "text", "text": None}], "name": "é"}])
def test_messages_like_transformers(message):
    assert render([message], add_generation_prompt=False) == judged([message])
    assert "content" not in plain_messages([{"role": "tool", "content": None}])[0]


@pytest.mark.parametrize("messages", [[], ["hi"], [None], [5]])
def test_messages_that_are_none(messages):
    with pytest.raises(TokenizerError, match=r"the conversation is empty|a message is"):
        render(messages)


@pytest.mark.parametrize("content", ["So it", " So it  ", "So\n", "", [
    {"type": "text", "text": "one"}, {"type": "text", "text": "two "}, {"type": "image"}]])
@pytest.mark.parametrize("source", [
    "{% for m in messages %}<{{ m.role }}>{{ m.content if m.content is string else "
    "m.content | selectattr('text') | map(attribute='text') | join }}</{{ m.role }}>\n{% endfor %}",
    "{% for m in messages %}[{{ (m.content if m.content is string else m.content[1].text) | trim }}"
    "]\n{% endfor %}"])
def test_the_last_message_goes_on(content, source):
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]
    found = render(messages, source, continue_final_message=True)
    assert found == judged(messages, source, continue_final_message=True)


@pytest.mark.parametrize(("last", "source", "complaint"), [
    ({"content": [{"type": "image"}]}, SHOW, "has no text to continue"),
    ({"tool_calls": []}, SHOW, "has no text to continue"),
    ({"content": "a"}, "fixed", "does not show the last")])
def test_messages_that_cannot_go_on(last, source, complaint):
    with pytest.raises(TokenizerError, match=f"continue_final_message: .*{complaint}"):
        render([{"role": "assistant", **last}], source, continue_final_message=True)
    with pytest.raises(TokenizerError, match="ask for one of them"):
        render([{"role": "user", "content": "a"}], continue_final_message=True,
               add_generation_prompt=True)


def test_a_template_by_name_or_file(tmp_path):
    tokenizer = load_tokenizer(SHIPPED / "stories-qwen2")
    own, file = tokenizer.template, tmp_path / "t.jinja"
    own.sources["rag"] = "R{{ eos_token }}"
    file.write_text("F{{ eos_token }}{{ pad_token }}{{ bos_token }}")
    talk = [{"role": "user", "content": "hi"}]
    assert choose_template(tokenizer) is own
    assert choose_template(tokenizer, "rag").render(talk) == "R<|im_end|>"
    assert choose_template(tokenizer, str(file)).render(talk) == \
        "F<|im_end|>" + own.variables.get("pad_token", "") + own.variables.get("bos_token", "")
    with pytest.raises(TokenizerError, match=r"'x' is neither a file nor .*: default, rag"):
        choose_template(tokenizer, "x")
    base = load_tokenizer(SHIPPED / "stories-llama2")
    assert choose_template(base) is None
    assert choose_template(base, str(file)).render(talk).startswith("F</s>")
    assert choose_template(base, str(file)).render(talk).endswith("<s>")
    with pytest.raises(TokenizerError, match="which are: none"):
        choose_template(base, "default")


def test_the_option(run_cli, tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{{ raise_exception('from the file') }}")
    chat = ("--chat", "--model", "stories-qwen2", "--max-new-tokens", "2")
    assert "from the file" in run_cli(*chat, "--chat-template", str(file), stdin="hi\n",
                                      code=2).stderr
    run_cli(*chat, "--chat-template", "default", stdin="hi\n", code=0)
    file.write_text("Once upon a time")
    run_cli("--chat", "--model", "stories-llama2", "--chat-template", str(file),
            "--max-new-tokens", "2", stdin="hi\n", code=0)
    assert "goes with --chat" in run_cli("--chat-template", "x", code=2).stderr
