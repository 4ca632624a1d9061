"""The model card: true, ready for the Hub, and deaf to what sources try to write into it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from studio import __version__
from studio.chat_template import named
from studio.merge.card import Prompt, code, fenced, make_card, plain
from studio.merge.report import make_report
from studio.merge.source_cards import license_of
from tests.merge.finished import RECIPE, Finished, finish, write_model

HOUSE = (
    "Doctor-Shotgun/Mythospice-70b",
    "Xwin-LM/Xwin-LM-70B-V0.1",
    "NousResearch/Nous-Hermes-Llama2-70b",
)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def merged(tmp_path: Path, cards: Sequence[str | None], recipe: str = RECIPE) -> Finished:
    models = []
    for number, card in enumerate(cards):
        files = {} if card is None else {"README.md": card}
        models.append(write_model(tmp_path / "abc"[number], number, files))
    return finish(tmp_path, models, recipe=recipe)


def relabelled(finished: Finished, labels: Sequence[str]) -> Finished:
    """The same merge, as if its sources had been named otherwise in the recipe."""
    plan = finished.plan
    named_as = dict(zip((s.label for s in plan.sources), labels, strict=True))
    stages = []
    for stage in plan.recipe.stages:
        slices = tuple(
            replace(
                part,
                inputs=tuple(
                    replace(entry, model=named_as.get(entry.model, entry.model))
                    for entry in part.inputs
                ),
            )
            for part in stage.slices
        )
        stages.append(replace(stage, slices=slices))
    sources = tuple(
        replace(source, label=label) for source, label in zip(plan.sources, labels, strict=True)
    )
    recipe = replace(plan.recipe, stages=tuple(stages))
    return replace(finished, plan=replace(plan, recipe=recipe, sources=sources))


def card_of(finished: Finished, prompt: Prompt | None = None) -> str:
    report = make_report(finished.plan, finished.records, 1.0)
    return make_card(finished.plan, report, prompt or Prompt(None, {}))


def front_matter(card: str) -> dict[str, Any]:
    """As the Hub reads it: everything between the first line and the next line of dashes."""
    matter = re.match(r"\A---\n(.*?)\n---\n", card, re.DOTALL)
    assert matter is not None
    data: dict[str, Any] = yaml.safe_load(matter[1])
    return data


@pytest.fixture
def house(tmp_path: Path) -> Finished:
    return relabelled(merged(tmp_path, ["---\nlicense: llama2\n---\n# x"] * 3), HOUSE)


def test_front_matter_for_hub_sources(house: Finished) -> None:
    assert front_matter(card_of(house)) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": list(HOUSE),
        "base_model_relation": "merge",
        "tags": ["mergekit", "merge", "slerp"],
        "license": "llama2",
    }


def test_huggingface_hub_reads_the_card(house: Finished) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(card_of(house))
    assert card.data.base_model == list(HOUSE)
    assert card.data.license == "llama2"
    assert "---" not in card.text.splitlines()[:3]


def test_revisions_are_no_part_of_a_hub_id(house: Finished) -> None:
    labels = (HOUSE[0] + "@v1.0", *HOUSE[1:])
    assert front_matter(card_of(relabelled(house, labels)))["base_model"] == list(HOUSE)


def test_local_folders_are_no_base_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even those whose path has the form of a Hub id."""
    for number in range(3):
        write_model(tmp_path / "models" / str(number), number)
    monkeypatch.chdir(tmp_path)
    finished = finish(tmp_path, [Path("models/0"), Path("models/1"), Path("models/2")])
    card = card_of(finished)
    assert "base_model" not in front_matter(card)
    assert "| `models/0` |" in card and "huggingface.co/models" not in card


@pytest.mark.parametrize(
    ("cards", "license_", "name", "words"),
    [
        (["license: mit"] * 3, "mit", None, "All sources state the licence `mit`"),
        (["license:\n- mit"] * 3, "mit", None, "All sources state the licence `mit`"),
        (
            ["license: llama2", "license: mit", "license: mit"],
            "other",
            "llama2+mit",
            "The sources state different licences, so this card names none",
        ),
        (
            ["license: mit", "license: mit", "tags: [x]"],
            "other",
            "mit+unknown",
            "Not every source names a known licence in its model card, so this card names none",
        ),
        (["license: other"] * 3, "other", "unknown", "Not every source names a known licence"),
    ],
)
def test_license(
    tmp_path: Path, cards: list[str], license_: str, name: str | None, words: str
) -> None:
    card = card_of(merged(tmp_path, [f"---\n{text}\n---\n" for text in cards]))
    front = front_matter(card)
    assert (front["license"], front.get("license_name")) == (license_, name)
    assert words in card


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\r\nlicense: apache-2.0\r\n---\r\n", "apache-2.0"),
        ("\ufeff---\nlicense: MIT\n---\n", "mit"),
        ("---\nlicense: [mit]\n---\n", "mit"),
        ("---\nlicense: [mit, llama2]\n---\n", None),
        ("---\nlicense: other\n---\n", None),
        ("---\nlicense: {a: b}\n---\n", None),
        ("---\nlicense: 'mit\n  base_model: evil'\n---\n", None),
        ('---\nlicense: "mit\\n---\\n# Owned"\n---\n', None),
        ("---\nlicense: mit\nlicense: gpl\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.system ['true']\n---\n", None),
        ("---\nlicense: !!str [mit]\n---\n", None),
        ("---\nlicense: 1.0\n---\n", None),
        ("---\nlicense: &a [*a, *a]\n---\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\n" + "[" * 5000 + "\n---\n", None),
        ("---\nlicense: " + "x" * 100 + "\n---\n", None),
        ("---\n- license\n---\n", None),
        ("---\n---\nlicense: mit\n", None),
        ("# A card\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_license_of(tmp_path: Path, text: str, expected: str | None) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    assert license_of(tmp_path) == expected


def test_license_of_a_model_without_card(tmp_path: Path) -> None:
    assert license_of(tmp_path) is None


def test_license_of_a_card_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(bytes(range(256)) * 10)
    assert license_of(tmp_path) is None


def test_body_tells_sources_directions_recipe_and_version(house: Finished) -> None:
    card = card_of(house)
    assert "# A merge of Mythospice-70b, Xwin-LM-70B-V0.1 and Nous-Hermes-Llama2-70b\n" in card
    assert f"Merge Studio {__version__}" in card
    first = (
        "1. **first**: slerp from `Doctor-Shotgun/Mythospice-70b` (the t = 0 end) to "
        "`Xwin-LM/Xwin-LM-70B-V0.1` (the t = 1 end)"
    )
    assert first in card
    assert "2. **Result**: slerp from `first` (the t = 0 end)" in card
    for source in house.plan.sources:
        assert source.fingerprint() in card
        assert f"](https://huggingface.co/{source.label})" in card
    report = make_report(house.plan, house.records, 1.0)
    assert f"```yaml\n{report['recipe']['yaml']}```" in card
    for part in report["summary"]["shares"].values():
        assert f"{part:.1%}" in card


def test_stage_on_a_base_names_it(tmp_path: Path) -> None:
    recipe = """
merge_method: task_arithmetic
base_model: {a}
models: [{{model: {b}}}, {{model: {c}}}]
parameters: {{weight: 0.5}}
"""
    a, b, c = (write_model(tmp_path / name, seed) for seed, name in enumerate("abc"))
    card = card_of(finish(tmp_path, (a, b, c), recipe=recipe))
    assert f"1. **Result**: task_arithmetic of `{b}`, `{c}` on the base `{a}`\n" in card


def table(card: str, title: str) -> Mapping[str, list[str]]:
    """A section's table by the first cell of each row."""
    section = card.partition(f"## {title}\n\n")[2].partition("\n\n")[0]
    rows = [[c.strip() for c in line.strip("|").split(" | ")] for line in section.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_table_has_every_place_with_its_t(house: Finished) -> None:
    rows = table(card_of(house), "Values of t and shares")
    assert list(rows)[2:] == ["embeddings", "layer 0", "layer 1", "layer 2", "norm", "head"]
    assert rows["embeddings"][:2] == ["0.25", "0.4"]
    assert rows["layer 1"][:2] == ["0.3", "0.4 … 0.5"]  # norms by the last rule, mlp by the first
    assert rows["layer 2"][:2] == ["0.5", "0.4 … 0.5"]
    assert rows["norm"] == ["0.25", "0.4", "45.0%", "15.0%", "40.0%"]


def test_prompt_format_of_a_named_template(house: Finished) -> None:
    card = card_of(house, Prompt(named("alpaca"), TOKENS))
    assert "Merge Studio's `alpaca`" in card
    assert (
        "```text\n<s>### Instruction:\nWrite a haiku about the sea.\n\n### Response:\n```" in card
    )
    assert "already begins with `<s>`: tokenize it with `add_special_tokens=False`" in card


def test_prompt_format_without_template_or_with_a_broken_one(house: Finished) -> None:
    assert "has no chat template" in card_of(house)
    card = card_of(house, Prompt("{{ raise_exception('<b>no</b>') }}", TOKENS))
    assert "An example cannot be shown" in card and "<b>" not in card


@pytest.mark.parametrize(
    "template",
    ["```\n# Owned\n{{ messages[0]['content'] }}", "````text\n{{ messages }}\n````\n## Owned"],
)
def test_template_cannot_leave_its_fence(house: Finished, template: str) -> None:
    assert "Owned" not in outside_of_fences(card_of(house, Prompt(template, TOKENS)))


def test_model_names_and_notes_cannot_write_markdown(house: Finished) -> None:
    evil = "x`|\n---\nlicense: mit\n---\n# Owned <script>alert(1)</script> [a](http://b) ```"
    finished = relabelled(house, (evil, *HOUSE[1:]))
    plan = replace(finished.plan, notes=(evil,), warnings=(evil,))
    card = card_of(replace(finished, plan=plan))
    assert front_matter(card)["base_model"] == list(HOUSE[1:])
    body = outside_of_fences(card.partition("\n---\n")[2])
    assert not re.search(r"^\s*(# Owned|---$|license)", body, re.MULTILINE)
    visible = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", body)  # without code spans
    assert not re.search(r"(?<!\\)<script", visible)
    assert not re.search(r"(?<!\\)\]\(http://b", visible)


def outside_of_fences(card: str) -> str:
    """The lines of the card that Markdown does not show as code blocks."""
    kept, fence = [], ""
    for line in card.splitlines():
        ticks = re.match(r"(`{3,})([^`]*)$", line)
        if not fence and ticks:
            fence = ticks[1]
        elif fence and ticks and len(ticks[1]) >= len(fence) and not ticks[2]:
            fence = ""
        elif not fence:
            kept.append(line)
    return "\n".join(kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a-b_c", "`a-b_c`"),
        ("a`b", "``a`b``"),
        ("`a", "`` `a ``"),
        ("a``b`c", "```a``b`c```"),
        ("a\nb\tc", "`a b c`"),
        ("a|b", "`a\\|b`"),
        ("\n", "(empty)"),
    ],
)
def test_code(text: str, expected: str) -> None:
    assert code(text) == expected


def test_plain_and_fenced() -> None:
    assert plain("a*b*\n# c <i>") == "a\\*b\\* # c \\<i\\>"
    assert plain("# a-b") == "\\# a-b"
    assert plain("1. [a](https://b)") == "1\\. \\[a\\](https\\://b)"
    assert fenced("a ```` b", "yaml") == "`````yaml\na ```` b\n`````"
    assert fenced("a\n", "") == "```\na\n```"


def test_remarks_only_where_there_are_any(house: Finished) -> None:
    plan = replace(house.plan, notes=(), warnings=())
    assert "## Remarks" not in card_of(replace(house, plan=plan))
    plan = replace(house.plan, notes=("copied: x",), warnings=("- y",))
    assert card_of(replace(house, plan=plan)).endswith("## Remarks\n\n- copied: x\n- \\- y\n")
