"""Every function that a page answers to, asked by a visitor: what is not listed here refuses.

A new function fails this test until it asks for the owner, or stands below with the reason why
everybody may call it.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio.arena.rating.pack import write_pack
from studio.arena.trials.trial import Trial
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.settings import Settings
from studio.ui.app import Studio, build
from studio.ui.blind.rating_page import RatingStudio, build_rating
from studio.ui.merge.presets import presets
from studio.ui.merge.recipe_json import recipe_to_json
from tests.e2e.conftest import STAND_IN, free_port
from tests.ui.canned import canned_trial

TOKEN = "the token of the one owner"
DEMO = recipe_to_json(presets()["demo"].recipe)
# What everybody may call, and why.
RATING = {
    "trials_now": "lists the trials that are open for raters, and names no model",
    "join": "gives a rater's code, for a trial that is open",
    "item": "shows the next two answers of a trial that is open",
    "vote": "stores a vote on a trial that is open, for the holder of a code",
    "skip": "puts an item off, for the holder of a code",
    "undo": "takes back the last vote of the holder of a code",
    "reveal": "tells the models once the holder of a code has rated everything",
}
FOR_ALL = {
    "head": {"who": "tells the page whether the owner looks at it"},
    "merge-tab": {
        "preview": "computes with the models that are shipped",
        "tensors": "computes with the models that are shipped",
        "read_yaml": "reads the text that was sent, with models that are shipped",
        "write_yaml": "writes the recipe that was sent as text, with models that are shipped",
        "state": "tells how far the merge is, without its name",
    },
    "serve-tab": {"engines": "tells only that the tab is the owner's"},
    "blind-tab": RATING,
}
# Every word that any function reads, so that only the missing token can be what it lacks.
REQUEST = {
    "recipe": DEMO, "text": dump_recipe(presets()["demo"].recipe), "layers": 4, "name": "mine",
    "file": "prompts.yaml", "note": "", "replace": True, "number": 0, "id": "x", "log": "x",
    "added": [], "engine": "vllm",
    "url": "http://127.0.0.1:9", "model": "demo/models/base", "action": "stop", "design": {},
    "data": "", "trial": "hidden-trial", "open": True, "what": "ratings", "code": "", "item": "x",
    "models": ["demo/models/base"], "machine": "here", "anyway": True, "why": "x",
    "changes": {"reveal": "each"}, "merge": "hidden-merge",
}  # fmt: skip


def functions_of(page: Any) -> list[tuple[str, str]]:
    """Each function that can be called by name, as "component, function"."""
    return [
        (str(block.elem_id), name)
        for block in page.blocks.values()
        for name in dir(block)
        if getattr(getattr(block, name, None), "_is_server_fn", False)
    ]


def files_in(folder: Path) -> dict[str, bytes]:
    """What lies in the data folder, but for what was measured of the shipped models."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "grams"
    }


class Caller:
    """Calls a page's functions as anyone on the network can."""

    def __init__(self, studio: Studio | RatingStudio) -> None:
        self.page, self.data = studio.page, studio.settings.data_dir
        url = f"http://127.0.0.1:{studio.settings.port}"
        self.client = httpx.Client(base_url=url, timeout=60)
        self.config = self.client.get("/config").json()
        self.parts = {
            part["props"].get("elem_id"): part["id"] for part in self.config["components"]
        }

    def call(self, part: str, function: str, **data: object) -> dict[str, Any]:
        body = {"data": data, "component_id": self.parts[part], "session_hash": "x"}
        answer = self.client.post(
            "/gradio_api/component_server", json={**body, "fn_name": function}
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A studio that others can reach, whose owner has a token."""
    data = tmp_path_factory.mktemp("data")
    return Settings(host="0.0.0.0", port=free_port(), data_dir=data, owner_token=TOKEN)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return canned_trial(tmp_path_factory.mktemp("home"), "hidden-trial", ("hidden-a", "hidden-b"))


@pytest.fixture(scope="module")
def whole(settings: Settings, trial: Trial) -> Iterator[Caller]:
    """The studio, with a recipe, a merge and a trial that are not for visitors."""
    studio = build(settings, (sys.executable, STAND_IN))
    studio.launch()
    caller = Caller(studio)
    data = settings.data_dir
    canned_trial(data / "trials", "hidden-trial", ("hidden-a", "hidden-b"))
    (data / "merges" / "hidden-merge").mkdir(parents=True)
    (data / "merges" / "hidden-merge" / "merge-report.json").write_text("{}")
    saved = caller.call(
        "merge-tab", "save_recipe", recipe=DEMO, name="hidden", note="", token=TOKEN
    )
    assert [entry["name"] for entry in saved["entries"]] == ["hidden"]
    yield caller
    assert studio.jobs.snapshot().number == studio.generations.snapshot().number == 0
    assert studio.fleet.snapshot() == []
    studio.close()


@pytest.fixture(scope="module")
def rating(
    settings: Settings, trial: Trial, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caller]:
    """The page for rating alone."""
    pack = tmp_path_factory.mktemp("pack") / "pack.zip"
    write_pack(trial, pack)
    data = tmp_path_factory.mktemp("data")
    studio = build_rating(replace(settings, port=free_port(), data_dir=data), pack)
    studio.launch()
    yield Caller(studio)
    studio.close()


@pytest.fixture(params=["whole", "rating"])
def caller(request: pytest.FixtureRequest) -> Caller:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Caller)
    return found


def test_nothing_of_a_page_runs_but_by_its_functions(caller: Caller) -> None:
    assert caller.page.fns == {} and caller.config["dependencies"] == []


def test_every_function_that_is_not_for_all_refuses_a_visitor(caller: Caller) -> None:
    before = files_in(caller.data)
    owners = [each for each in functions_of(caller.page) if each[1] not in FOR_ALL[each[0]]]
    assert owners
    for (part, function), token in product(owners, (None, "", "wrong", TOKEN[:-1], [TOKEN])):
        answer = caller.call(part, function, **REQUEST, token=token)
        assert set(answer) == {"error"}, (function, token, answer)
        assert answer["error"].endswith("the owner of this studio: enter the owner token"), function
    assert files_in(caller.data) == before


def test_the_owner_is_refused_nothing(caller: Caller) -> None:
    for part, function in functions_of(caller.page):
        answer = caller.call(part, function, token=TOKEN)
        assert "owner" not in str(answer.get("error")), (function, answer)


def test_what_is_for_all_tells_a_visitor_nothing_hidden(whole: Caller) -> None:
    before = files_in(whole.data)
    for part, functions in FOR_ALL.items():
        for function in functions:
            answer = whole.call(part, function, **REQUEST)
            shown = json.dumps(answer)
            assert "hidden" not in shown and str(whole.data) not in shown, (function, shown)
            for_raters = part == "blind-tab" and function != "trials_now"
            assert ("this trial is not open" in shown) is ("error" in answer) is for_raters, shown
    assert files_in(whole.data) == before


def test_what_is_for_all_exists(whole: Caller) -> None:
    listed = {(part, function) for part, each in FOR_ALL.items() for function in each}
    assert listed <= set(functions_of(whole.page))


def test_the_rating_page_answers_to_what_it_needs_and_no_more(rating: Caller) -> None:
    wanted = {"who", *RATING, "open_to_raters", "download"}
    assert {function for _, function in functions_of(rating.page)} == wanted


def test_a_visitor_of_the_rating_page_rates(rating: Caller) -> None:
    (found,) = rating.call("blind-tab", "trials_now")["trials"]
    joined = rating.call("blind-tab", "join", trial=found["name"], name="Ann")
    asked = {"trial": found["name"], "code": joined["code"]}
    item = rating.call("blind-tab", "item", **asked)
    assert "hidden" not in json.dumps(item)
    stored = rating.call("blind-tab", "vote", **asked, item=item["item"]["id"], verdict="a")
    assert (stored["stored"], stored["done"]) == (item["item"]["id"], 1)
