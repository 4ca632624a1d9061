"""What the form of a new trial offers, plans and refuses."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from studio.arena.trials.design import Format
from studio.arena.trials.ledger import Ledger
from studio.errors import StudioError
from studio.serve.kept import Presets
from studio.settings import Settings
from studio.ui.access import Access
from studio.ui.blind.form import DEMO_MODELS, Form
from studio.ui.blind.trials import Trials

FILLED: dict[str, Any] = {
    "name": "t1",
    "project": "tests",
    "models": [
        {"label": "one", "source": "demo/models/instruct", "prompt_format": None},
        {"label": "two", "source": "demo/models/story", "prompt_format": "alpaca"},
    ],
    "primary": ["one", "two"],
    "compare": "primary",
    "prompts": ["demo.yaml"],
    "categories": ["story"],
    "sealed": None,
    "sensitive": False,
    "sampling": "careful",
    "draws": 3,
    "votes_per_prompt": 1,
    "raters": 1,
    "reveal": "end",
    "scores": [],
    "expect": 0.65,
    "expect_ties": 0.3,
    "alpha": 0.05,
    "seen_prompts": False,
}
PROMPTS = "- {id: x, category: c, prompt: Sing of a river.}\n"


@pytest.fixture
def form(tmp_path: Path) -> Form:
    return Form(tmp_path / "prompts", tmp_path / "merges")


def test_form_takes_presets_of_ones_own(tmp_path: Path) -> None:
    kept = Presets(tmp_path / "serve")
    form = Form(tmp_path / "prompts", tmp_path / "merges", presets=kept.all)
    with pytest.raises(StudioError, match="choose one of"):
        form.design({**FILLED, "sampling": "mine"})
    kept.save("mine", {"temperature": 0.9, "min_p": 0.2, "seed": 5, "max_tokens": 9})
    assert form.choices()["presets"]["mine"]["min_p"] == 0.2
    design, _ = form.design({**FILLED, "sampling": "mine"})
    assert (design.sampling["preset"], design.sampling["temperature"]) == ("mine", 0.9)
    assert not {"seed", "max_tokens"} & design.sampling.keys()


def test_form_takes_formats_that_were_edited(tmp_path: Path) -> None:
    def written(source: str, name: str | None) -> tuple[str, tuple[str, ...]] | None:
        return ("template", ("END",)) if source == "demo/models/instruct" else None

    form = Form(tmp_path / "prompts", tmp_path / "merges", written)
    assert form.planned(FILLED, Ledger(tmp_path))["edited"] == ["one"]
    design, _ = form.design(FILLED)
    assert [m.prompt_format for m in design.models] == [Format("template", ("END",)), "alpaca"]


def test_form_offers_what_is_there(form: Form, tmp_path: Path) -> None:
    (tmp_path / "merges" / "mine").mkdir(parents=True)
    (tmp_path / "merges" / "mine" / "merge-report.json").write_text("{}")
    form.upload("mine.yaml", PROMPTS)
    choices = form.choices()
    assert choices["prompts"][0]["file"] == "demo.yaml"
    assert choices["prompts"][0]["categories"] == {"instruction": 32, "story": 8, "roleplay": 8}
    assert choices["prompts"][-1] == {
        "file": "mine.yaml", "categories": {"c": 1}, "sealed": 0, "sensitive": 0,
    }  # fmt: skip
    assert [model["label"] for model in choices["models"]] == [
        "mine", "demo-base", "demo-instruct", "demo-roleplay", "demo-story",
    ]  # fmt: skip


def test_merge_is_offered_with_its_own_sources_first_the_newest(form: Form, tmp_path: Path) -> None:
    sources = [str(DEMO_MODELS / "story"), "org/instruct", "/models/a,b/", "elsewhere/instruct"]
    for age, name in enumerate(("demo-base", "old")):
        folder = tmp_path / "merges" / name
        folder.mkdir(parents=True)
        report = folder / "merge-report.json"
        report.write_text(json.dumps({"sources": [{"model": each} for each in sources]}))
        os.utime(report, (1e9 - age, 1e9 - age))
    models = {model["label"]: model for model in form.choices()["models"]}
    assert list(models)[:2] == ["demo-base", "old"]
    assert models["demo-base"]["kind"] == "finished merge"
    for merge in ("demo-base", "old"):
        assert models[merge]["sources"] == ["demo-story", "instruct", "a-b", "instruct (2)"]
    assert models["demo-base (2)"]["source"] == str(DEMO_MODELS / "base")
    assert models["instruct"]["source"] == "org/instruct"
    assert models["a-b"]["kind"] == "source of a merge"


def test_form_becomes_a_design_and_a_plan(form: Form, tmp_path: Path) -> None:
    design, prompts = form.design(FILLED)
    assert (design.name, design.primary, len(prompts)) == ("t1", ("one", "two"), 8)
    assert design.models[1].prompt_format == "alpaca"
    assert design.sampling["preset"] == "careful" and design.sampling["temperature"] == 0.7
    assert not {"seed", "max_tokens"} & set(design.sampling)
    ledger = Ledger(tmp_path)
    planned = form.planned(FILLED, ledger)
    assert (planned["prompts"], planned["votes"], planned["answers"]) == (8, 8, 48)
    assert planned["sentence"].startswith("8 votes on 8 prompts at 30 % ties find a true 65 %")
    assert (planned["left"], planned["seen"], planned["sealed"]) == (0.05, 0, 2)
    assert planned["scope"].startswith("A claim will be about this one rater")
    assert planned["workload"].startswith("The rater sees 8 pairs: all count")
    ledger.burn(design, prompts[:3], "results read")
    assert form.planned(FILLED, ledger)["seen"] == 3


def test_form_sets_how_raters_are_measured_and_when_a_claim_may_be_made(form: Form) -> None:
    wish = {"stop_early": False, "overlap": 0.5, "repeats": 0.1, "identical": 0}
    design, _ = form.design({**FILLED, **wish})
    assert {key: getattr(design, key) for key in wish} == wish


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "T 1"}, "use lower-case letters, digits and dashes"),
        ({"prompts": []}, "choose at least one file of prompts"),
        ({"prompts": ["../secrets.yaml"]}, "there are no prompts named '../secrets.yaml'"),
        ({"categories": ["poem"]}, "none of the prompts fits this choice"),
        ({"sampling": "hot"}, "sampling: choose one of"),
        ({"draws": 1}, "use at least 3, or alpha: 0"),
        ({"primary": ["one", "three"]}, '"three" is none of the models'),
        ({"seed": 3}, '"seed" is no field of the form'),
        ({"overlap": 1.5}, "overlap is 1.5; use 0 to 1"),
        ({"overlap": True}, "overlap: expected"),
        ({"repeats": 0.6}, "repeats is 0.6; use 0 to 0.5"),
        ({"identical": -0.1}, "identical is -0.1; use 0 to 0.5"),
        ({"stop_early": "no"}, "stop_early: expected true or false"),
        ({"exclusions": {"faster": 3}}, 'exclusions: unknown key "faster"'),
        (
            {"models": [FILLED["models"][0], {"label": "two", "source": "/nowhere/model"}]},
            "/nowhere/model: there is no such folder; check the path",
        ),
        ({"models": [{"label": "=1", "source": "x"}] * 2}, "cannot be a model's label"),
    ],
)
def test_form_refuses(form: Form, change: dict[str, Any], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        form.design({**FILLED, **change})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.yaml", "- {id: x}\n", '^mine.yaml, line 1: "category" is missing'),
        ("../mine.yaml", PROMPTS, "a prompt file is named with letters"),
        (".mine.yaml", PROMPTS, "a prompt file is named with letters"),
        ("mine.txt", PROMPTS, "a prompt file is named with letters"),
        ("demo.yaml", PROMPTS, "the name of a file of the studio"),
        ("mine.yaml", "x" * 1_000_000, "at most 900,000 bytes"),
        ("mine.yaml", 3, "at most 900,000 bytes"),
    ],
)
def test_upload_refuses(form: Form, tmp_path: Path, name: str, text: Any, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        form.upload(name, text)
    assert not list((tmp_path / "prompts").glob("*"))


def test_upload_of_the_same_name_replaces_and_says_so(form: Form) -> None:
    assert form.upload("mine.yaml", PROMPTS)["replaced"] is False
    with pytest.raises(StudioError, match='"category" is missing'):
        form.upload("mine.yaml", "- {id: x}\n")
    more = PROMPTS + "- {id: y, category: d, prompt: Describe the rain.}\n"
    assert form.upload("mine.yaml", more)["replaced"] is True
    (mine,) = [each for each in form.choices()["prompts"] if each["file"] == "mine.yaml"]
    assert mine["categories"] == {"c": 1, "d": 1}


def test_trial_is_created_once_and_within_its_budget(form: Form, tmp_path: Path) -> None:
    trials = Trials(tmp_path / "trials", Access(Settings()))
    trials.create(*form.design(FILLED))
    (standing,) = trials.standings({})
    assert (standing.name, standing.answers, standing.needed) == ("t1", 0, 48)
    assert not standing.is_ready
    with pytest.raises(StudioError, match='a trial named "t1" exists'):
        trials.create(*form.design(FILLED))
    with pytest.raises(StudioError, match="has 0 of its error budget of 0.05 left"):
        trials.create(*form.design({**FILLED, "name": "t2"}))  # the budget of 5 % is spent
    explored = {**FILLED, "name": "t2", "alpha": 0}
    with pytest.raises(StudioError, match="2 of 8 prompts are sealed, which is for verdicts"):
        trials.create(*form.design(explored))
    trials.create(*form.design({**explored, "sealed": False}))
    assert [standing.name for standing in trials.standings({})] == ["t1", "t2"]


def test_trial_that_was_tampered_with_is_shown_with_its_problem(form: Form, tmp_path: Path) -> None:
    trials = Trials(tmp_path / "trials", Access(Settings()))
    trials.create(*form.design(FILLED))
    fixed = tmp_path / "trials" / "t1" / "design.json"
    fixed.write_text(fixed.read_text().replace('"draws": 3', '"draws": 4'))
    (standing,) = trials.standings({})
    assert not standing.is_ready and "was changed after the trial was fixed" in standing.problem


CARD = base64.b64encode(
    json.dumps({"name": "Mira", "first_mes": "Hm?", "alternate_greetings": ["Oh."]}).encode()
).decode()


def test_card_becomes_a_file_of_prompts(form: Form) -> None:
    made = form.upload_card("mira.png", CARD, ["Who are you?", " ", "Where is {{char}}?"], "Tom")
    assert made == {
        "file": "mira.jsonl", "categories": {"role-play": 2}, "sealed": 0, "sensitive": 0,
        "notes": ["not used: its other greetings"],
    }  # fmt: skip
    namesake = form.upload_card("other.png", CARD, ["What do you fear?"], "")
    assert namesake["file"] == "mira-2.jsonl", "another Mira keeps the first one's prompts"
    both = {**FILLED, "prompts": ["mira.jsonl", "mira-2.jsonl"], "categories": []}
    assert [prompt.id for prompt in form.design(both)[1]] == ["mira-1", "mira-2", "mira-2-1"]
    _, prompts = form.design({**FILLED, "prompts": ["mira.jsonl"], "categories": []})
    assert [prompt.messages[-1].content for prompt in prompts] == ["Who are you?", "Where is Mira?"]


@pytest.mark.parametrize(
    ("data", "requests", "message"),
    [
        (CARD, ["  "], "say something to the character"),
        (CARD, "Hi", "is a list of texts"),
        ("!", ["Hi"], "the card arrived damaged"),
        ("aGk=", ["Hi"], "card.png: neither a PNG nor a card"),
        (CARD, ["{{roll:6}}"], "only {{char}} and {{user}} exist"),
    ],
)
def test_card_that_cannot_be_used_is_refused(
    form: Form, data: Any, requests: Any, message: str
) -> None:
    with pytest.raises(StudioError, match=message):
        form.upload_card("card.png", data, requests, "")
