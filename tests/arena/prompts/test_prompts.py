"""Prompt files: what is read, and how every mistake is told with its line."""

import json
import re
from pathlib import Path

import pytest

from studio.arena.checks.constraints import Constraint
from studio.arena.prompts.prompt import Message, Prompt, choose, load_prompts, prompt_from_data
from studio.errors import StudioError

YAML = """\
- id: tale-1
  category: story
  tags: [short, sea]
  system: You are {{char}}, the keeper of a lighthouse.
  char: Mira
  user: Tom
  messages:
    - role: user
      content: I am {{user}}. Who are you?
    - role: assistant
      content: Mira, at your service.
    - {role: user, content: Tell me of the storm.}
  constraints:
    - words: {at_least: 20}
    - lowercase
  max_tokens: 200
  sealed: true

- id: plain
  category: story
  prompt: "Name three rivers."
  language: de
  sensitive: true
"""
TALE = Prompt(
    id="tale-1",
    category="story",
    tags=("short", "sea"),
    system="You are Mira, the keeper of a lighthouse.",
    messages=(
        Message("user", "I am Tom. Who are you?"),
        Message("assistant", "Mira, at your service."),
        Message("user", "Tell me of the storm."),
    ),
    constraints=(
        Constraint("words", {"at_least": 20}),
        Constraint("lowercase"),
    ),
    max_tokens=200,
    char="Mira",
    user="Tom",
    sealed=True,
)
PLAIN = Prompt(
    id="plain",
    category="story",
    messages=(Message("user", "Name three rivers."),),
    language="de",
    sensitive=True,
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_load_prompts_reads_yaml(tmp_path: Path) -> None:
    assert load_prompts(write(tmp_path, "p.yaml", YAML)) == [TALE, PLAIN]


def test_load_prompts_reads_jsonl_as_written_by_as_data(tmp_path: Path) -> None:
    lines = [json.dumps(prompt.as_data()) for prompt in (TALE, PLAIN)]
    lines = [line.replace('"system": "", ', "") for line in lines]
    assert load_prompts(write(tmp_path, "p.jsonl", "\n\n".join(lines))) == [TALE, PLAIN]


def test_prompt_from_data_reads_what_as_data_gave() -> None:
    for prompt in (TALE, PLAIN):
        assert prompt_from_data(prompt.as_data(), "pack") == prompt


@pytest.mark.parametrize("mark", [";", "\t"])
def test_load_prompts_reads_csv_of_other_spreadsheets(tmp_path: Path, mark: str) -> None:
    lines = ("id,category,prompt,tags", 'x,c,"Sing, please; a short, happy song",', "y,c,Row,")
    first, second = load_prompts(
        write(tmp_path, "p.csv", "\r\n".join(swap(line, mark) for line in lines))
    )
    assert first.messages[-1].content == "Sing, please; a short, happy song"
    assert second.id == "y"


def swap(line: str, mark: str) -> str:
    """The commas between cells, but not within quotes, replaced."""
    return mark.join(re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', line))


def test_load_prompts_reads_csv(tmp_path: Path) -> None:
    text = (
        "id,category,prompt,constraints,tags,max_tokens,sealed\r\n"
        'a,list,"Name three,\nplease.","[{""words"": {""exactly"": 3}}]",short; quick,50,TRUE\r\n'
        "b,list,Sing of a mountain.,,,,\r\n"
    )
    first, second = load_prompts(write(tmp_path, "p.csv", text))
    assert first == Prompt(
        id="a",
        category="list",
        messages=(Message("user", "Name three,\nplease."),),
        constraints=(Constraint("words", {"exactly": 3}),),
        tags=("short", "quick"),
        max_tokens=50,
        sealed=True,
    )
    assert (second.tags, second.max_tokens, second.sealed) == ((), 512, False)


def test_choose_leaves_sensitive_prompts_to_those_who_ask() -> None:
    assert choose([TALE, PLAIN]) == [TALE]
    assert choose([TALE, PLAIN], sensitive=True, sealed=False) == [PLAIN]
    assert choose([TALE, PLAIN], sealed=True, categories=["list"]) == []


ENTRY = "- id: a\n  category: c\n  prompt: Sing.\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY + "  promt: x\n", r'line 4: promt: unknown key \(did you mean "prompt"\?\)'),
        (ENTRY + "  id: b\n", 'line 4: "id" is given twice'),
        (ENTRY + "\n" + ENTRY, r'line 5: id: "a" is also the id in .*p.yaml, line 1'),
        (ENTRY + "- id: b\n  category: c\n  prompt: SING!\n", 'line 4: "b" asks nearly the same'),
        (ENTRY + "  max_tokens: 0\n", "line 4: max_tokens: 0 is not a whole number from 1"),
        (ENTRY + "  sealed: maybe\n", "line 4: sealed: 'maybe' is neither true nor false"),
        (ENTRY + "  tags: x\n", "line 4: tags: expected a list"),
        (ENTRY + "  tags: [x, 3]\n", "line 4: tags, no. 2: expected text, found '3'"),
        (ENTRY + "  language: german\n", "line 4: language: 'german': two small letters"),
        (ENTRY + "  system: '{{char}}'\n", 'line 4: system: {{char}} needs a name: add "char:"'),
        (ENTRY + "  system: '{{name}}'\n", "line 4: system: {{name}}: only {{char}} and"),
        (ENTRY + "  constraints:\n    - lowercase\n    - wrods: {exactly: 1}\n",
         'line 6: constraints, no. 2: there is no constraint "wrods"'),
        (ENTRY + "  constraints: [lowercase, lowercase]\n", "no. 2: given twice"),
        (ENTRY + "  messages: []\n", 'line 1: needs either "prompt" or "messages"'),
        ("- id: a\n  category: c\n", 'line 1: needs either "prompt" or "messages"'),
        ("- category: c\n  prompt: Sing.\n", 'line 1: "id" is missing'),
        ("- id: a b\n  category: c\n  prompt: Sing.\n", "line 1: id: 'a b' cannot be an id"),
        ("- id: a\n  category: c\n  prompt: ''\n", "line 3: prompt: expected text"),
        ("- id: 2020-01-01\n  category: c\n  prompt: x\n", "line 1: id: expected text"),
        ("id: a\n", "line 1: expected a list"),
        ("- a\n", "line 1: expected an entry of keys and values"),
        ("- id: [\n", "line 2: this is not valid YAML"),
        ("- &x {id: a, y: *x}\n", "not valid YAML|nested or repeated too much"),
        ("", "there are no prompts in it"),
    ],
)  # fmt: skip
def test_load_prompts_names_the_line_of_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudioError, match=message.replace("{{", r"\{\{")):
        load_prompts(write(tmp_path, "p.yaml", text))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([("user", "a"), ("user", "b")], "line 6: messages, no. 2: two messages of the user"),
        ([("user", "a"), ("assistant", "b")], "line 4: messages: the last message must be the"),
        ([("system", "a"), ("user", "b")], "line 4: messages, no. 1: role is 'system'; use user"),
        ([("user", " ")], "line 5: messages, no. 1, content: expected text"),
    ],
)
def test_load_prompts_names_the_message_that_is_wrong(
    tmp_path: Path, messages: list[tuple[str, str]], message: str
) -> None:
    turns = "".join(f"  - role: {role}\n    content: '{text}'\n" for role, text in messages)
    path = write(tmp_path, "p.yaml", f"- id: a\n  category: c\n  messages:\n{turns}")
    with pytest.raises(StudioError, match=message):
        load_prompts(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", '{"id": "a"}\n{"id": }\n', "line 2: not valid JSON"),
        ("p.jsonl", '{"id": "a", "id": "b"}\n', "line 1: not valid JSON .'id' is given twice"),
        ("p.jsonl", '\n{"id": "a", "category": "c", "prompt": 3}\n', "line 2: prompt: expected"),
        ("p.csv", "id,category,prompt\na,b\n", "line 2: 2 cells where the first line names 3"),
        ("p.csv", 'id,category,prompt\na,b,"x\ny"\nc,,z\n', 'line 4: "category" is missing'),
        ("p.csv", "id,id\na,b\n", "line 1: a column occurs twice"),
        ("p.csv", 'id,category,prompt\na,b,"c"d\n', "line 2: not valid CSV"),
        ("p.csv", "id,category,messages\na,b,[{]\n", "line 2: messages: not valid JSON"),
        ("p.csv", "id,category,prompt,max_tokens\na,b,c,1.5\n", "line 2: max_tokens: '1.5' is no"),
        ("p.txt", "x", "prompts are read from .yaml, .jsonl and .csv"),
        ("none.yaml", None, "cannot be read"),
    ],
)
def test_load_prompts_refuses_in_other_files(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    path = tmp_path / name if text is None else write(tmp_path, name, text)
    with pytest.raises(StudioError, match=message):
        load_prompts(path)


def test_prompts_about_one_document_or_with_one_question_are_not_alike(tmp_path: Path) -> None:
    text = "\n".join(
        f"- {{id: {name}, category: c, system: {system}, prompt: {prompt}}}"
        for name, system, prompt in (
            ("a", "a long letter about the sea", "'Who wrote it?'"),
            ("b", "a long letter about the sea", "'Which harbour is named last?'"),
            ("c", "an entirely different note", "'Who wrote it?'"),
        )
    )
    assert len(load_prompts(write(tmp_path, "p.yaml", text))) == 3
    other = write(
        tmp_path,
        "q.yaml",
        "- {id: d, category: c, system: the long letter about a sea, prompt: 'Who wrote it'}",
    )
    with pytest.raises(StudioError, match='q.yaml, line 1: "d" asks nearly the same as "a"'):
        load_prompts(tmp_path / "p.yaml", other)


def test_long_text_can_be_shared_in_yaml(tmp_path: Path) -> None:
    text = (
        "- {id: a, category: c, system: &letter 'Dear {{user}}', user: Ann, prompt: 'Who?'}\n"
        "- {id: b, category: c, system: *letter, user: Bo, prompt: 'Where then?'}\n"
    )
    loaded = load_prompts(write(tmp_path, "p.yaml", text))
    assert [prompt.system for prompt in loaded] == ["Dear Ann", "Dear Bo"]


SHIPPED = sorted((Path(__file__).parents[3] / "prompts").glob("*.yaml"))


def test_shipped_prompts_load_together() -> None:
    assert len(load_prompts(*SHIPPED)) >= 48


def test_demo_prompts_have_a_sealed_split_and_were_not_trained_on() -> None:
    from demo.words import HEROES, ITEMS, is_held_out

    prompts = load_prompts(Path(__file__).parents[3] / "prompts/demo.yaml")
    assert len(choose(prompts, sealed=True)) == 12
    for prompt in choose(prompts, categories=["story", "roleplay"]):
        words = re.findall(r"\w+", prompt.messages[0].content)
        hero = next(word for word in words if word in HEROES)
        item = next(word for word in words if word in ITEMS)
        assert is_held_out("topic", hero, item), prompt.id
