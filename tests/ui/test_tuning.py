"""What the page is told of the demo models, and of models that are not here."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.ui.bases import Bases
from studio.ui.jobs import STUDIO
from studio.ui.presets import presets
from studio.ui.tuning import MOST_WAITING, Tuner

ROOT = Path(__file__).parents[2]
DEMO = presets()["demo"].recipe
HOUSE = presets()["creative-70b"].recipe
BASE = "demo/models/base"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def tuner(tmp_path: Path) -> Tuner:
    return Tuner(Bases(tmp_path / "data", STUDIO))


def settled(tuner: Tuner, recipe: Recipe, base: str | None = None) -> dict[str, Any]:
    """The preview once nothing is measured any more."""
    until = time.monotonic() + 60
    while (found := tuner.preview(recipe, 4, base))["measuring"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def test_demo_is_assumed_at_first_and_exact_soon(tuner: Tuner) -> None:
    first = tuner.preview(DEMO, 4)
    assert (first["basis"], first["measuring"], first["heatmap"]) == ("assumed", True, None)
    found = settled(tuner, DEMO)
    assert (found["basis"], found["problem"], found["progress"]) == ("exact", "", None)
    assert found["space"] == "weights" and found["survives"] is None
    assert len(found["shares"]) == len(found["rows"]) == 7
    assert all(1 < degrees < 20 for degrees in found["stages"][0]["degrees"][:5])
    json.dumps(found, allow_nan=False)


def test_base_shows_task_vectors(tuner: Tuner) -> None:
    found = settled(tuner, DEMO, BASE)
    assert (found["space"], found["base"], found["base_problem"]) == ("task vectors", BASE, "")
    assert all(80 < degrees < 100 for degrees in found["stages"][0]["degrees"][:5])
    assert all(0 < part < 1 for part in found["survives"][1])


@pytest.mark.parametrize(
    ("base", "problem"),
    [("somebody/else", "not on this machine"), ("{folder}/other", "hidden_size")],
)
def test_base_that_cannot_be_used_is_told_and_left_out(
    tuner: Tuner, tmp_path: Path, base: str, problem: str
) -> None:
    (tmp_path / "other").mkdir()
    config = json.loads((ROOT / BASE / "config.json").read_text()) | {"hidden_size": 8}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    found = settled(tuner, DEMO, base.format(folder=tmp_path))
    assert problem in found["base_problem"]
    assert (found["space"], found["base"], found["basis"]) == ("weights", None, "exact")


def test_models_that_are_not_here_are_assumed(tuner: Tuner) -> None:
    found = tuner.preview(HOUSE, 80)
    assert (found["basis"], found["measuring"], found["layers"]) == ("assumed", False, 80)
    assert found["missing"] == list(HOUSE.sources)
    assert found["stages"][0]["degrees"] is None and found["stages"][0]["linear_share"] is None


def test_table_holds_every_tensor(tuner: Tuner) -> None:
    table = tuner.tensors(HOUSE, 80)
    assert len(table["rows"]) == 723


def test_requests_beyond_those_that_may_wait_are_refused(tuner: Tuner) -> None:
    tuner.preview(HOUSE, 80)
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(tuner.preview(HOUSE, 80)["basis"])
        except StudioError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(MOST_WAITING + 3)]
    with tuner._turn:
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while len(answers) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert answers.count("assumed") == MOST_WAITING
    assert sum("too many" in str(answer) for answer in answers) == 3
