"""Raters and their requests: who may, what is stored, and that nothing tells a side."""

import itertools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from studio.arena.prompts.prompt import Prompt
from studio.arena.trials import trial as trial_module
from studio.arena.trials.design import Design, Model, Reveal
from studio.arena.trials.schedule import schedule
from studio.errors import StudioError
from studio.settings import Settings
from studio.ui.access import Access
from studio.ui.blind.raters import Raters
from studio.ui.blind.rating import RatingDesk
from studio.ui.blind.trials import Trials
from tests.ui.canned import canned_trial, plain, prompts

TOKEN = "an owner's long token"


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    """Trials of a studio that others can reach."""
    return Trials(tmp_path / "trials", Access(Settings(host="0.0.0.0", owner_token=TOKEN)))


@pytest.fixture
def desk(trials: Trials, tmp_path: Path) -> RatingDesk:
    return RatingDesk(trials, Raters(tmp_path / "raters"))


def seated(desk: RatingDesk, trial: str = "t1", name: str = "") -> dict[str, Any]:
    """What every request of a new rater carries."""
    joined = desk.join({"trial": trial, "token": TOKEN, "name": name})
    return {"trial": trial, "token": TOKEN, "code": joined["code"]}


def test_rater_goes_from_the_first_item_to_the_reveal(trials: Trials, desk: RatingDesk) -> None:
    canned_trial(trials.folder, "t1")
    me = seated(desk, name="Ann")
    answer = desk.item(me)
    assert (answer["rater"], answer["done"], answer["total"]) == ("Ann", 0, 6)
    for place in range(6):
        item = answer["item"]
        assert item["number"] == place + 1 and item["a"] != item["b"]
        answer = desk.vote({**me, "item": item["id"], "verdict": "a", "comment": "=fine"})
        assert answer["stored"] == item["id"] and answer["done"] == place + 1
        assert "models" not in answer
        assert [c["passed"] for c in answer["checks"]["a"]] == [True]
        assert [c["found"] for c in answer["checks"]["b"]] == ["5"]
    assert answer["item"] is None
    votes = desk.reveal(me)["votes"]
    assert len(votes) == 6
    assert {frozenset((vote["a"], vote["b"])) for vote in votes} == {
        frozenset(("left-model", "right-model"))
    }
    with pytest.raises(StudioError, match="revealed: votes can no longer be undone"):
        desk.undo(me)


def test_vote_may_bring_the_models_where_the_design_says_so(
    trials: Trials, desk: RatingDesk
) -> None:
    canned_trial(trials.folder, "t1", reveal=Reveal.EACH)
    me = seated(desk)
    item = desk.item(me)["item"]
    models = desk.vote({**me, "item": item["id"], "verdict": "tie"})["models"]
    assert {item["a"][:8], item["b"][:8]} == {
        plain(model, prompts(1)[0], 0)[:8] for model in models.values()
    }
    assert item["a"].startswith(plain(models["a"], prompts(1)[0], 0)[:8])
    assert set(models.values()) == {"left-model", "right-model"}


def test_item_stays_after_a_reload_and_on_another_device(
    trials: Trials, desk: RatingDesk, tmp_path: Path
) -> None:
    canned_trial(trials.folder, "t1")
    me = seated(desk)
    first = desk.item(me)
    second = desk.vote({**me, "item": first["item"]["id"], "verdict": "b"})
    again = RatingDesk(trials, Raters(tmp_path / "raters"))  # as after a restart of the studio
    spelled = {**me, "code": me["code"].upper().replace("-", " ")}
    assert again.item(spelled)["item"] == second["item"]


def test_undo_and_skip_bring_the_right_items(trials: Trials, desk: RatingDesk) -> None:
    canned_trial(trials.folder, "t1")
    me = seated(desk)
    first = desk.item(me)["item"]
    second = desk.vote({**me, "item": first["id"], "verdict": "b"})["item"]
    again = desk.undo(me)["item"]
    assert again == {**first, "undone": 1}
    old = {**me, "item": first["id"], "undone": 0, "verdict": "b"}
    for replayed in (old, {**old, "undone": None}, {**old, "undone": "1"}, {**old, "undone": 2}):
        with pytest.raises(StudioError, match="this vote was taken back"):
            desk.vote(replayed)
    voted = {**me, "item": first["id"], "undone": again["undone"], "verdict": "a"}
    assert desk.vote(voted)["item"] == second
    assert desk.skip({**me, "item": second["id"]})["item"]["id"] not in (first["id"], second["id"])
    rows = (trials.folder / "t1" / "ratings.csv").read_text().splitlines()
    assert len(rows) == 3  # a header, the undone vote and the one that replaced it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": "0" * 16}, "this item is not yours to judge"),
        ({"verdict": "model_a"}, '"model_a" is no verdict'),
        ({"code": "k7qd-0000"}, "this code is not known here"),
        ({"code": None}, "a rater's code is text"),
        ({"token": "wrong"}, "this trial is not open"),
        ({"token": None}, "this trial is not open"),
        ({"trial": "t2"}, "there is no trial of that name"),
        ({"trial": "../trials/t1"}, "there is no trial of that name"),
        ({"trial": 3}, "there is no trial of that name"),
        ({"recognised": "yes"}, "recognised is true or false"),
        ({"comment": "x" * 3000}, "a comment has at most"),
        ({"scores": [5]}, "scores are an object"),
        ({"scores": {"style_a": 5}}, '"style_a" is not scored here'),
    ],
)
def test_forged_vote_is_refused(
    trials: Trials, desk: RatingDesk, change: dict[str, Any], message: str
) -> None:
    canned_trial(trials.folder, "t1")
    me = seated(desk)
    item = desk.item(me)["item"]["id"]
    with pytest.raises(StudioError, match=message):
        desk.vote({**me, "item": item, "verdict": "a", **change})
    assert not (trials.folder / "t1" / "ratings.csv").exists()


def test_vote_counts_once_and_only_for_its_rater(trials: Trials, desk: RatingDesk) -> None:
    canned_trial(trials.folder, "t1", raters=2)
    me, other = seated(desk), seated(desk)
    item = desk.item(me)["item"]["id"]
    theirs = desk.item(other)["item"]["id"]
    desk.vote({**me, "item": item, "verdict": "a"})
    for cast in ({**me, "item": item}, {**other, "item": item}, {**me, "item": theirs}):
        with pytest.raises(StudioError, match="already; undo it|not yours to judge"):
            desk.vote({**cast, "verdict": "b"})
    assert len((trials.folder / "t1" / "ratings.csv").read_text().splitlines()) == 2


def test_trial_is_for_its_owner_until_it_is_opened(trials: Trials, desk: RatingDesk) -> None:
    canned_trial(trials.folder, "t1")
    stranger = {"trial": "t1", "name": ""}
    assert trials.standings({}) == []
    for name in ("t1", "missing"):
        with pytest.raises(StudioError, match="this trial is not open"):
            desk.join({**stranger, "trial": name})
    trials.set_open("t1", True)
    assert [standing.name for standing in trials.standings({})] == ["t1"]
    code = desk.join(stranger)["code"]
    assert desk.item({"trial": "t1", "code": code})["total"] == 6
    trials.set_open("t1", False)
    with pytest.raises(StudioError, match="this trial is not open"):
        desk.item({"trial": "t1", "code": code})


@pytest.mark.parametrize("name", ["=1+1", "a\nb", "x" * 200, 3, "ann"])
def test_rater_name_that_is_taken_or_unfit_is_refused(tmp_path: Path, name: Any) -> None:
    raters = Raters(tmp_path)
    raters.join("Ann")
    with pytest.raises(StudioError, match="a rater's name|rates here already"):
        raters.join(name)


def test_raters_file_holds_no_code(tmp_path: Path) -> None:
    name, code = Raters(tmp_path).join("")
    text = (tmp_path / "raters.jsonl").read_text()
    assert name in text and code not in text and code.replace("-", "") not in text
    assert Raters(tmp_path).who(code) == name


def test_who_joins_again_and_again_is_stopped_for_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.blind.raters.MOST_AN_HOUR", 3)
    first = Raters(tmp_path)
    codes = [first.join("")[1] for _ in range(3)]
    for raters in (first, Raters(tmp_path)):  # after a restart too
        with pytest.raises(StudioError, match="3 raters have joined within an hour"):
            raters.join("")
        assert raters.who(codes[0]), "who has a code goes on"
    file = tmp_path / "raters.jsonl"
    text = file.read_text()
    when = json.loads(text.splitlines()[0])["when"]
    file.write_text(text.replace(when, "2026-01-01T00:00:00.000+00:00", 1))
    assert Raters(tmp_path).join("Ann")[0] == "Ann"


def test_codes_are_known_to_many_threads_at_once(tmp_path: Path) -> None:
    codes = [Raters(tmp_path).join(f"rater {number}")[1] for number in range(40)]
    fresh = Raters(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(fresh.who, codes))
    assert names == [f"rater {number}" for number in range(40)]


# ---- swapping the models behind the sides changes nothing --------------------------------------

ASKED = prompts(4)


def design(labels: tuple[str, str]) -> Design:
    return Design(
        name="t1", project="tests", models=tuple(Model(label, label) for label in labels),
        primary=("one", "two"), prompts=("canned",), repeats=0, identical=0, alpha=0,
    )  # fmt: skip


def seen_with(secret: bytes) -> list[tuple[str, str]]:
    """Prompt and left model of each item."""
    (items,) = schedule(design(("one", "two")), ASKED, secret)
    return [(item.prompt, item.left.model) for item in items]


def two_secrets() -> tuple[bytes, bytes]:
    """Secrets with the same order of prompts, all sides swapped."""
    first = bytes(32)
    other = {"one": "two", "two": "one"}
    wanted = [(prompt, other[left]) for prompt, left in seen_with(first)]
    tries: Iterator[bytes] = (number.to_bytes(32, "big") for number in itertools.count(1))
    return first, next(secret for secret in tries if seen_with(secret) == wanted)


def text_by_side(secret: bytes) -> dict[tuple[str, str], str]:
    """For each model and prompt its text: the same one on the same side for every secret."""
    found = {}
    for prompt, left in seen_with(secret):
        right = "two" if left == "one" else "one"
        found |= {(left, prompt): f"{prompt}: the left text", (right, prompt): f"{prompt}: right"}
    return found


def transcript(folder: Path, secret: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything a rater's page is told until all is rated, random ids made plain."""

    class Secrets:
        token_bytes = staticmethod(lambda size: secret)

    monkeypatch.setattr(trial_module, "secrets", Secrets)
    trials = Trials(folder / "trials", Access(Settings()))
    texts = text_by_side(secret)

    def write(model: str, prompt: Prompt, draw: int) -> str:
        return texts[model, prompt.id]

    canned_trial(trials.folder, "t1", ("one", "two"), asked=ASKED, write=write)
    desk = RatingDesk(trials, Raters(folder / "raters"))
    told = [desk.join({"trial": "t1", "name": ""})]
    me = {"trial": "t1", "code": told[0]["code"]}
    told.append(desk.item(me))
    while item := told[-1]["item"]:
        for wrong in ({"item": "x", "verdict": "a"}, {"item": item["id"], "verdict": "c"}):
            with pytest.raises(StudioError) as error:
                desk.vote({**me, **wrong})
            told.append({"error": str(error.value), "item": item})
        told.append(desk.skip({**me, "item": item["id"]}) if len(told) == 4 else {"item": item})
        item = told[-1]["item"]
        told.append(desk.vote({**me, "item": item["id"], "verdict": "a"}))
    random = rf"rater-[0-9a-f]{{8}}|{me['code']}|\b[0-9a-f]{{16}}\b"
    return [re.sub(random, "ID", json.dumps(answer)) for answer in told]


def test_swapping_the_models_behind_the_sides_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        transcript(tmp_path / f"{n}", secret, monkeypatch) for n, secret in enumerate(two_secrets())
    )
    assert len(first) > 15
    assert first == second
    assert not [line for line in first if '"one"' in line or '"two"' in line]
