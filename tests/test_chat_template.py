"""Chat templates: the published formats to the letter, and which template a recipe means."""

import json
from pathlib import Path

import pytest

from studio.chat_template import (
    name_of,
    named,
    names,
    of_folder,
    render,
    resolve,
    special_tokens,
)
from studio.errors import StudioError

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SYSTEM = {"role": "system", "content": "Be brief."}
HI = {"role": "user", "content": "Hi!"}
HELLO = {"role": "assistant", "content": "Hello."}
WHO = {"role": "user", "content": "Who are you?"}
POLITE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)

PUBLISHED = [
    ("vicuna", [HI], f"<s>{POLITE} USER: Hi! ASSISTANT:"),
    ("vicuna", [SYSTEM, HI], "<s>Be brief. USER: Hi! ASSISTANT:"),
    (
        "vicuna",
        [HI, HELLO, WHO],
        f"<s>{POLITE} USER: Hi! ASSISTANT: Hello.</s>USER: Who are you? ASSISTANT:",
    ),
    ("alpaca", [HI], "<s>### Instruction:\nHi!\n\n### Response:\n"),
    ("alpaca", [SYSTEM, HI], "<s>Be brief.\n\n### Instruction:\nHi!\n\n### Response:\n"),
    (
        "alpaca",
        [HI, HELLO, WHO],
        "<s>### Instruction:\nHi!\n\n### Response:\nHello.</s>\n\n"
        "### Instruction:\nWho are you?\n\n### Response:\n",
    ),
    ("llama-2", [HI], "<s>[INST] Hi! [/INST]"),
    ("llama-2", [SYSTEM, HI], "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi! [/INST]"),
    (
        "llama-2",
        [HI, HELLO, WHO],
        "<s>[INST] Hi! [/INST] Hello. </s><s>[INST] Who are you? [/INST]",
    ),
    ("mistral", [HI], "<s>[INST] Hi! [/INST]"),
    ("mistral", [SYSTEM, HI], "<s>[INST] Be brief.\n\nHi! [/INST]"),
    ("mistral", [HI, HELLO, WHO], "<s>[INST] Hi! [/INST] Hello.</s>[INST] Who are you? [/INST]"),
    ("chatml", [HI], "<s><|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"),
    (
        "chatml",
        [SYSTEM, HI, HELLO, WHO],
        "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    (
        "llama3",
        [SYSTEM, HI],
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
]


@pytest.mark.parametrize(("name", "messages", "text"), PUBLISHED)
def test_template_writes_the_published_format(
    name: str, messages: list[dict[str, str]], text: str
) -> None:
    assert render(named(name), TOKENS, messages) == text


@pytest.mark.parametrize(("name", "messages", "text"), PUBLISHED)
def test_transformers_renders_the_same(
    name: str, messages: list[dict[str, str]], text: str
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(
        [messages], chat_template=named(name), add_generation_prompt=True, **TOKENS
    )
    assert rendered == [text]


@pytest.mark.parametrize("name", names())
def test_an_answer_continues_its_prompt(name: str) -> None:
    """What a model is prompted with is a prefix of what the conversation becomes."""
    prompt = render(named(name), TOKENS, [SYSTEM, HI])
    whole = render(named(name), TOKENS, [SYSTEM, HI, HELLO], add_generation_prompt=False)
    assert whole.startswith(prompt)
    assert "Hello." in whole.removeprefix(prompt)


@pytest.mark.parametrize("name", names())
def test_bos_stands_once_at_the_beginning_and_nothing_where_there_is_none(name: str) -> None:
    text = render(named(name), TOKENS, [HI])
    assert text.startswith("<s>") and text.count("<s>") == 1
    assert render(named(name), {}, [HI]) == text.removeprefix("<s>")
    whole = render(named(name), TOKENS, [HI, HELLO])
    assert render(named(name), {}, [HI, HELLO]) == whole.replace("<s>", "").replace("</s>", "")


@pytest.mark.parametrize("name", ["vicuna", "alpaca", "llama-2", "mistral"])
@pytest.mark.parametrize("late", [SYSTEM, {"role": "tool", "content": "42"}])
def test_a_message_that_the_format_cannot_say_is_an_error(name: str, late: dict[str, str]) -> None:
    with pytest.raises(StudioError, match="system message"):
        render(named(name), TOKENS, [HI, HELLO, late])


def test_vicuna_with_an_empty_system_message_has_none() -> None:
    empty = {"role": "system", "content": ""}
    assert render(named("vicuna"), TOKENS, [empty, HI]) == "<s>USER: Hi! ASSISTANT:"


def test_names_are_the_files() -> None:
    assert names() == ("alpaca", "chatml", "llama-2", "llama3", "mistral", "vicuna")
    assert all(name_of(named(name)) == name for name in names())
    assert name_of("{{ messages }}") is None


def folder(home: Path, name: str, template: object = None, jinja: str | None = None) -> Path:
    path = home / name
    path.mkdir()
    config = {"bos_token": "<s>"} | ({"chat_template": template} if template else {})
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (path / "chat_template.jinja").write_text(jinja)
    return path


@pytest.mark.parametrize(
    ("template", "jinja", "expected"),
    [
        (None, None, None),
        ("in the config", None, "in the config"),
        ("in the config", "in the file", "in the file"),
        ([{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}], None, "d"),
        ([{"name": "rag", "template": "r"}], None, None),
        (7, None, None),
    ],
)
def test_of_folder(tmp_path: Path, template: object, jinja: str | None, expected: object) -> None:
    assert of_folder(folder(tmp_path, "model", template, jinja)) == expected


def test_of_folder_without_tokenizer(tmp_path: Path) -> None:
    assert of_folder(tmp_path) is None


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        (["one", "two", "two"], "two"),
        (["one", "two", None], "one"),
        ([None, "two", "one"], "two"),
        (["one", "two", "three"], "one"),
        (["one", None, None], "one"),
        ([None, None, None], None),
    ],
)
def test_auto_is_the_most_common_and_the_base_wins_ties(
    tmp_path: Path, templates: list[str | None], expected: str | None
) -> None:
    folders = [folder(tmp_path, str(i), text) for i, text in enumerate(templates)]
    assert resolve("auto", folders) == expected


def test_resolve_name_text_and_nothing(tmp_path: Path) -> None:
    base = folder(tmp_path, "base", "the base's")
    assert resolve(None, [base]) is None
    assert resolve("llama-2", [base]) == named("llama-2")
    own = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert resolve(own, [base]) == own
    marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert resolve(marked, [base]) == marked


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("vicunna", r'"vicunna" is not known \(did you mean "vicuna"\?\); use auto, alpaca'),
        ("xyz", '"xyz" is not known; use auto, alpaca, chatml, llama-2, llama3, mistral, vicuna'),
        ("{% for m in messages %}", "not valid Jinja"),
        ("{{ messages[0].content ", r"not valid Jinja \(line 1: "),
        ("{{ 'Hello' }}", "does not print the user's message"),
        ("{{ messages[5]['content'] + 1 }}", "fails on a conversation of 1 messages"),
        ("{{ raise_exception('no') }}", r"fails on a conversation .*\(no\)"),
        ("{{ ().__class__.__mro__[1].__subclasses__() }}", "fails on a conversation"),
    ],
)
def test_resolve_refuses(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        resolve(template, [folder(tmp_path, "base")])


def test_resolve_finds_an_unreadable_base_before_anything_is_merged(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(StudioError, match="tokenizer_config.json: not valid JSON"):
        resolve(None, [tmp_path])


def test_special_tokens_come_from_both_files(tmp_path: Path) -> None:
    config = {"bos_token": None, "eos_token": {"content": "</s>", "lstrip": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": "<s>", "eos_token": "x"}')
    assert special_tokens(tmp_path) == {"bos_token": "<s>", "eos_token": "</s>"}
