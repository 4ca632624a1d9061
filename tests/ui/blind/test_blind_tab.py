"""What the owner's page is told while trials are made, and what is refused to others."""

import base64
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from studio.arena.rating.pack import write_pack
from studio.arena.trials.design import Model
from studio.errors import StudioError
from studio.settings import Settings
from studio.ui.access import Access
from studio.ui.blind.form import Form
from studio.ui.blind.generation import Generations
from studio.ui.blind.raters import Raters
from studio.ui.blind.reading import ReadingDesk
from studio.ui.blind.tab import BlindDesk
from studio.ui.blind.trials import Trials
from tests.arena.sample_trials import MERGED, Parrot, made
from tests.ui.canned import canned_trial

TOKEN = "an owner's long token"
TALKS = "import sys; print('starting left-model', file=sys.stderr); sys.exit({code})"


def desk_of(folder: Path, code: int = 0) -> BlindDesk:
    access = Access(Settings(host="0.0.0.0", owner_token=TOKEN))
    generations = Generations(folder, (sys.executable, "-c", TALKS.format(code=code)))
    form = Form(folder / "prompts", folder / "merges")
    return BlindDesk(access, Trials(folder / "trials", access), form, generations)


@pytest.mark.parametrize(("code", "talk"), [(0, []), (1, ["starting left-model"])])
def test_list_of_trials_names_no_model_unless_something_failed(
    tmp_path: Path, code: int, talk: list[str]
) -> None:
    desk = desk_of(tmp_path, code)
    canned_trial(desk.trials.folder, "t1")
    desk.generate({"token": TOKEN, "trial": "t1"})
    end = time.monotonic() + 30
    while (told := desk.trials_now({"token": TOKEN}))["generation"]["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert told["generation"]["talk"] == talk
    assert told["trials"] == [
        {"name": "t1", "title": "t1", "ready": True, "answers": 36, "needed": 36,
         "open": False, "pack": False, "engine": "", "gpus": 1, "problem": ""}
    ]  # fmt: skip
    assert ("left-model" in str(told)) == bool(talk)


@pytest.mark.parametrize(
    "function",
    [
        "choices",
        "plan",
        "upload",
        "upload_card",
        "create",
        "generate",
        "cancel",
        "open_to_raters",
        "add_pack",
        "design",
        "amend",
    ],
)
def test_what_sets_up_trials_is_the_owners(tmp_path: Path, function: str) -> None:
    desk = desk_of(tmp_path)
    for request in ({}, {"token": "wrong"}, {"token": None, "trial": "t1"}):
        with pytest.raises(StudioError, match="is for the owner of this studio"):
            getattr(desk, function)(request)


@pytest.mark.parametrize("function", ["results", "download", "into_card"])
def test_results_are_the_owners(tmp_path: Path, function: str) -> None:
    desk = desk_of(tmp_path)
    canned_trial(desk.trials.folder, "t1")
    desk.trials.set_open("t1", True)
    reading = ReadingDesk(
        desk.access, desk.trials, Raters(tmp_path / "raters"), tmp_path / "merges"
    )
    request: dict[str, Any] = {"trial": "t1", "what": "ratings", "token": "wrong"}
    with pytest.raises(StudioError, match="is for the owner of this studio"):
        getattr(reading, function)(request)
    if function != "into_card":  # which asks for a merge, too
        assert getattr(reading, function)({**request, "token": TOKEN})


@pytest.mark.parametrize("merge", ["other", "../home", "", None, 3])
def test_only_a_merge_that_was_compared_gets_the_paragraph(tmp_path: Path, merge: Any) -> None:
    desk, merges = desk_of(tmp_path), tmp_path / "merges"
    for folder in (merges / "mine", merges / "other", tmp_path / "home"):
        folder.mkdir(parents=True)
        (folder / "merge-report.json").write_text("{}")
        (folder / "README.md").write_text("# Mine\n")
    models = (Model("left-model", str(merges / "mine")), Model("right-model", "org/right"))
    canned_trial(desk.trials.folder, "t1", models=models)
    reading = ReadingDesk(desk.access, desk.trials, Raters(tmp_path / "raters"), merges)
    request = {"trial": "t1", "token": TOKEN}
    assert reading.results(request)["merges"] == ["mine"]
    with pytest.raises(StudioError, match="compared no finished merge named"):
        reading.into_card({**request, "merge": merge})
    assert (merges / "other" / "README.md").read_text() == "# Mine\n"
    assert reading.into_card({**request, "merge": "mine"}) == {"merge": "mine"}
    assert "**Blind comparison.**" in (merges / "mine" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.2}, "alpha: cannot be amended"),
        ({"exclusions": {"faster_than": 1e9}}, "faster_than is"),
        ({"exclusions": "all"}, "expected a mapping"),
        ({"reveal": "now"}, '"now" is none of end, each'),
        ("reveal: each", "the changes are an object"),
    ],
)
def test_what_cannot_be_amended_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    desk = desk_of(tmp_path)
    canned_trial(desk.trials.folder, "t1")
    request = {"trial": "t1", "token": TOKEN, "changes": changes, "why": "because"}
    with pytest.raises(StudioError, match=message):
        desk.amend(request)
    with pytest.raises(StudioError, match="needs a reason"):
        desk.amend({**request, "changes": {"reveal": "each"}, "why": None})
    assert desk.design(request)["amendments"] == []


def test_a_trial_goes_on_with_the_engine_and_the_gpus_it_was_begun_with(tmp_path: Path) -> None:
    @contextmanager
    def held(model: Model) -> Iterator[Parrot]:
        speaker, is_merged = Parrot(model.label), model.label == MERGED
        speaker.identity = {
            "engine": "vllm" if is_merged else "endpoint",
            "tensor_parallel_size": "4" if is_merged else "1",
        }
        yield speaker

    desk = desk_of(tmp_path)
    made(desk.trials.folder / "t1", 2, open_model=held)
    standing = desk.trials.standing("t1")
    assert (standing.is_ready, standing.engine, standing.gpus) == (True, "vllm", 4)


def test_visitor_is_told_only_of_open_trials(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    for name in ("t1", "t2"):
        canned_trial(desk.trials.folder, name)
    desk.open_to_raters({"token": TOKEN, "trial": "t2", "open": True})
    told = desk.trials_now({})
    assert (
        told["trials"] == [{"name": "t2", "title": "t2", "ready": True}]
        and told["generation"] is None
    )


def test_pack_is_taken_in_and_ready_to_rate(tmp_path: Path) -> None:
    made = canned_trial(tmp_path / "elsewhere", "t1")
    write_pack(made, tmp_path / "t1.pack.zip")
    data = base64.b64encode((tmp_path / "t1.pack.zip").read_bytes()).decode()
    desk = desk_of(tmp_path)
    name = desk.add_pack({"token": TOKEN, "data": data})["name"]
    (told,) = desk.trials_now({"token": TOKEN})["trials"]
    assert (told["name"], told["title"]) == (name, "t1")
    assert told["ready"] and told["pack"]
    for wrong in ("!", base64.b64encode(b"no zip").decode()):
        with pytest.raises(StudioError, match="arrived damaged|this file: is not a trial pack"):
            desk.add_pack({"token": TOKEN, "data": wrong})
