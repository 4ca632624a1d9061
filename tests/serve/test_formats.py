"""The format of each model, and prompts as real tokenizers make them: one begin token, always."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from studio.chat_template import named, names
from studio.errors import StudioError
from studio.serve.formats import (
    STOPS,
    choose,
    detect,
    edited,
    mismatch,
    stated_format,
    write_prompt,
)
from studio.serve.kept import Formats
from tests.test_architecture import ROOT

DEMO = ROOT / "demo" / "models"

MODELS = Path("demo/models")
HI = [{"role": "user", "content": "Hi!"}]
TALK = [*HI, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Who?"}]


def bare(home: Path, *, template: str | None = None) -> Path:
    """A model's folder with the demo's tokenizer, which puts a begin token first, as Llama's."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(MODELS / "base" / name, home)
    if template is not None:
        (home / "chat_template.jinja").write_text(template)
    return home


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("base", ("Request:",)),
        ("instruct", ("USER:",)),
        ("story", ("### Instruction:",)),
        ("roleplay", ("Guest:",)),
    ],
)
def test_a_model_with_a_template_speaks_its_own_format(name: str, stop: tuple[str, ...]) -> None:
    found = detect(f"demo/models/{name}", MODELS / name)
    assert found is not None and (found.name, found.stop) == ("own", stop)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Xwin-LM/Xwin-LM-70B-V0.1", "vicuna"),
        ("/models/mythospice-70B/", "alpaca"),
        ("NousResearch/Nous-Hermes-Llama2-70b", "alpaca"),
        ("someone/Xwin-LM-70B-V0.1", "vicuna"),
        ("someone/Other-70b", None),
    ],
)
def test_makers_state_a_format_for_models_without_a_template(model: str, name: str | None) -> None:
    assert stated_format(model) == name
    found = detect(model, None)
    assert (found and found.name) == name
    if found:
        assert (found.template, found.stop) == (named(found.name), STOPS[found.name])


def test_a_template_in_the_files_wins_over_what_is_stated(tmp_path: Path) -> None:
    folder = tmp_path / "Mythospice-70b"
    folder.mkdir()
    found = detect(str(folder), bare(folder, template=named("vicuna")))
    assert found is not None and found.name == "own" and found.stop == ("USER:",)
    assert found.why == "its own chat template, which is vicuna"


@pytest.mark.parametrize("name", ["own", *names()])
@pytest.mark.parametrize("messages", [HI, TALK])
def test_a_prompt_has_one_begin_token(name: str, messages: list[dict[str, str]]) -> None:
    folder = MODELS / "instruct"
    prompt = write_prompt(choose(name, folder), folder, messages)
    assert prompt.tokens is not None and prompt.sent == prompt.tokens and not prompt.warning
    begin = 1
    assert prompt.tokens[0] == begin and prompt.tokens[1] != begin
    assert prompt.text.startswith("<s>")
    # What tokenizing the text by default would have sent: the begin token twice.
    doubled = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(prompt.text).ids
    assert doubled[:2] == [begin, begin] and tuple(doubled[1:]) == prompt.tokens


def test_transformers_makes_the_same_tokens() -> None:
    from transformers import AutoTokenizer

    folder = MODELS / "story"
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        TALK, add_generation_prompt=True, return_dict=False
    )
    assert write_prompt(choose("own", folder), folder, TALK).tokens == tuple(theirs)


def test_a_template_that_writes_the_begin_token_twice_is_mended(tmp_path: Path) -> None:
    folder = bare(tmp_path)
    twice = edited("{{ bos_token }}" + named("vicuna"), [], folder)
    once = write_prompt(choose("vicuna", folder), folder, HI)
    assert write_prompt(twice, folder, HI).tokens == once.tokens


def test_a_template_without_the_begin_token_is_warned_about(tmp_path: Path) -> None:
    folder = bare(tmp_path)
    without = edited("{% for m in messages %}{{ m.content }}{% endfor %}", [], folder)
    assert "begin the template with {{ bos_token }}" in write_prompt(without, folder, HI).warning


def test_without_a_tokenizer_the_text_is_sent(tmp_path: Path) -> None:
    used = choose("alpaca", None)
    prompt = write_prompt(used, None, HI)
    assert prompt.sent == prompt.text == "### Instruction:\nHi!\n\n### Response:\n"
    assert write_prompt(used, tmp_path, HI).tokens is None


def test_a_broken_tokenizer_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StudioError, match="the tokenizer cannot be read"):
        write_prompt(choose("alpaca", tmp_path), tmp_path, HI)


def test_a_model_asked_in_another_format_is_warned_about() -> None:
    xwin, hermes = "Xwin-LM/Xwin-LM-70B-V0.1", "NousResearch/Nous-Hermes-Llama2-70b"
    assert mismatch(xwin, None, choose("vicuna", None)) == ""
    assert mismatch(hermes, None, choose("vicuna", None)).startswith(
        "Nous-Hermes-Llama2-70b was trained on alpaca prompts and is asked in vicuna: a wrong"
    )
    assert mismatch("someone/else", None, choose("vicuna", None)) == ""
    story = MODELS / "story"
    assert "was trained on its own prompts" in mismatch("story", story, choose("chatml", story))
    assert mismatch("story", story, choose("own", story)) == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [("vicunna", r'"vicunna" is not a prompt format \(did you mean "vicuna"'), ("own", "no chat")],
)
def test_choose_refuses(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=message):
        choose(name, tmp_path)


@pytest.mark.parametrize(
    ("template", "message"),
    [("{% for %}", "not valid Jinja"), ("{{ bos_token }}", "does not print the user's message")],
)
def test_edited_refuses(template: str, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        edited(template, [], None)


def test_edited_formats_are_kept_by_model(tmp_path: Path) -> None:
    own = "{{ bos_token }}{% for m in messages %}<{{ m.content }}>{% endfor %}"
    Formats(tmp_path).save("m", edited(own, ["<"], None))
    found = Formats(tmp_path).of("m", None)
    assert found is not None and (found.name, found.template, found.stop) == ("edited", own, ("<",))
    assert Formats(tmp_path).of("other", None) is None
    Formats(tmp_path).save("m", None)
    assert json.loads((tmp_path / "formats.json").read_text()) == {}


def test_a_trial_may_name_what_was_edited(tmp_path: Path) -> None:
    """None is the model's format as the Serve tab takes it: the edited one where there is one."""
    own = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    formats = Formats(tmp_path)
    formats.save("demo/models/story", edited(own, ["<"], None))
    for model in ("demo/models/story", str(DEMO / "story"), "demo/../demo/models/story/"):
        assert formats.written(model, None) == (own, ("<",)) == formats.written(model, "edited")
        assert formats.written(model, "own") is None is formats.written(model, "vicuna")
        with pytest.raises(StudioError, match=r'"vicunna" is not a .*\(did you mean "vicuna"'):
            formats.written(model, "vicunna")
    assert formats.written("demo/models/base", None) is None
    with pytest.raises(StudioError, match="demo/models/base: no prompt format was edited for it"):
        formats.written("demo/models/base", "edited")
    formats.save(str(DEMO / "story"), None)
    assert formats.written("demo/models/story", None) is None


def test_formats_kept_under_an_older_name_are_found_and_replaced(tmp_path: Path) -> None:
    own = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    old = {"demo/models/story": {"template": "old", "stop": []}}
    (tmp_path / "formats.json").write_text(json.dumps(old))
    formats = Formats(tmp_path)
    assert formats.written(str(DEMO / "story"), None) == ("old", ())
    formats.save(str(DEMO / "story"), edited(own, [], None))
    assert list(json.loads((tmp_path / "formats.json").read_text())) == [str(DEMO / "story")]
