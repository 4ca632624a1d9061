"""The charts of results: what is drawn, and that no name in them becomes markup."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from studio.arena.outcome.charts import charts, plotly_file
from studio.arena.outcome.report import html_report
from studio.arena.outcome.results import results
from studio.arena.rating.sitting import Sitting
from studio.arena.trials.design import Compare, Model
from studio.errors import StudioError
from tests.arena.sample_trials import MERGED, RIVAL, made, rate_all


def test_nothing_is_drawn_before_the_first_vote(tmp_path: Path) -> None:
    found = results(made(tmp_path, 4))
    assert charts(found) == []
    assert "<script" not in html_report(found, [])


def test_preferences_are_drawn_with_their_intervals(tmp_path: Path) -> None:
    trial = made(tmp_path, 8)
    rate_all(Sitting(tmp_path, "Ann"), lambda item: "a" if item.a.startswith(MERGED) else "b")
    found = results(trial)
    (chart,) = charts(found)
    (marks,) = chart.data
    names = [each["text"] for each in chart.layout["annotations"]]
    assert names == [f"{MERGED} against {RIVAL} (primary)", "story", "command"]
    assert marks["x"] == [1.0, 1.0, 1.0] and marks["cliponaxis"] is False
    assert marks["marker"]["symbol"] == ["diamond", "circle", "circle"]
    assert found.primary.low is not None
    assert marks["error_x"]["arrayminus"][0] == pytest.approx(1.0 - found.primary.low)
    assert marks["hovertext"][1].startswith("story<br>100 % of 4 votes")


def test_three_models_get_strengths_and_a_matrix(tmp_path: Path) -> None:
    names = ("alpha", "beta", "gamma")
    trial = made(
        tmp_path,
        6,
        models=tuple(Model(name, name) for name in names),
        primary=("alpha", "beta"),
        compare=Compare.ALL,
    )
    rate_all(Sitting(tmp_path, "Ann"), lambda item: "a" if item.a < item.b else "b")
    _, strengths, matrix = charts(results(trial))
    assert strengths.data[0]["x"] == sorted(strengths.data[0]["x"], reverse=True)
    assert matrix.layout["xaxis"]["ticktext"] == list(names)
    assert matrix.data[0]["z"] == [[None, 1, 1], [0, None, 1], [0, 0, None]]
    assert [
        each["text"] for each in matrix.layout["annotations"]
    ] == "100% 100% 0% 100% 0% 0%".split()


def test_name_is_never_markup_and_never_ends_the_script(tmp_path: Path) -> None:
    trial = made(tmp_path, 4)
    rate_all(Sitting(tmp_path, "Ann"), lambda item: "a")
    found = results(trial)
    hostile = "</script><b>" + "long " * 40
    bad = dataclasses.replace(
        found, categories=(dataclasses.replace(found.primary, category=hostile),)
    )
    name = charts(bad)[0].layout["annotations"][1]["text"]
    assert name.startswith("&lt;/script&gt;&lt;b&gt;long") and name.count("<br>") == 1
    assert "</script><b>" not in html_report(bad, [])


def test_missing_plotly_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.arena.outcome.charts.find_spec", lambda name: None)
    assert importlib.util.find_spec("plotly") is not None
    with pytest.raises(StudioError, match="pip install plotly"):
        plotly_file()
