"""The charts of a trial's results as data: what the page and the report both give to Plotly.

Colours of text, grid and marks are left to whoever draws them, who knows whether it is dark.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from studio.arena.outcome.power import percent
from studio.arena.outcome.results import Comparison, Results
from studio.errors import StudioError

ROW, AXIS = 52, 64  # pixels: a row with its name above the mark, and what the axis takes
FAINT = "#8a9096"  # seen on white and on black
LINE = 44  # characters that fit a phone's width; a name takes two lines at most


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: `data` and `layout` are Plotly's, `height` is in pixels."""

    title: str
    note: str
    height: int
    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    value: float
    low: float | None
    high: float | None
    told: str
    strong: bool = False


def charts(results: Results) -> list[Chart]:
    """The charts there is something to show in, the decisive one first."""
    found = []
    if results.primary.preference is not None:
        found.append(_preferences(results))
    if len(results.strengths) > 2:
        found += [_strengths(results), _matrix(results)]
    return found


def plotly_file() -> Path:
    """Plotly's JavaScript as it was installed; raises StudioError if it is not there."""
    spec = find_spec("plotly")  # found, not imported: only its JavaScript is wanted
    if spec is None or spec.origin is None:
        raise StudioError("charts need plotly, which is not installed here: pip install plotly")
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def _preferences(results: Results) -> Chart:
    parts = [results.primary, *results.others, *results.categories]
    rows = [
        _Row(_name(part, index == 0), part.preference, part.low, part.high, _told(part), index == 0)
        for index, part in enumerate(parts)
        if part.preference is not None
    ]
    axis = {"range": [0, 1], "tickformat": ".0%", "title": {"text": "votes for the first model"}}
    return _dots(
        "Who is preferred",
        "Share of votes for the first model, ties as ½; lines are 95 % intervals over raters and "
        "prompts. They describe; the verdict is the test's.",
        rows,
        axis,
        0.5,
    )


def _name(part: Comparison, is_primary: bool) -> str:
    return part.category or f"{part.first} against {part.second}{' (primary)' * is_primary}"


def _told(part: Comparison) -> str:
    assert part.preference is not None
    told = f"{percent(part.preference)} of {part.wins + part.losses + part.ties} votes"
    if part.low is None or part.high is None:
        return told
    return f"{told} ({percent(part.low)} to {percent(part.high)})"


def _strengths(results: Results) -> Chart:
    rows = [
        _Row(s.model, s.elo, s.low, s.high, f"{s.elo:.0f} ({s.low:.0f} to {s.high:.0f})")
        for s in results.strengths
    ]
    return _dots(
        "Strength",
        "Bradley-Terry on Elo's scale, 0 is the mean; with a prior, so few votes stay near 0.",
        rows,
        {"title": {"text": "Elo"}},
        0.0,
    )


def _dots(
    title: str, note: str, rows: Sequence[_Row], axis: dict[str, Any], middle: float
) -> Chart:
    """A mark and its interval a row, the first on top."""
    line = {"type": "line", "x0": middle, "x1": middle, "yref": "paper", "y0": 0, "y1": 1}
    shared = {"fixedrange": True, "zeroline": False}
    layout = {
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": False,
        "margin": {"l": 18, "r": 22, "t": 6, "b": 44},
        "xaxis": {**axis, **shared, "showgrid": True, "ticklabeloverflow": "allow"},
        "yaxis": {**shared, "visible": False, "range": [len(rows) - 0.6, -0.95]},
        "annotations": [_above(row.name, place) for place, row in enumerate(rows)],
        "shapes": [{**line, "layer": "below", "line": {"color": FAINT, "dash": "dot"}}],
    }
    return Chart(title, note, AXIS + ROW * len(rows), [_marks(rows)], layout)


def _marks(rows: Sequence[_Row]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "cliponaxis": False,  # all or nothing lies on the edge
        "x": [row.value for row in rows],
        "y": list(range(len(rows))),
        "marker": {"size": 11, "symbol": ["diamond" if row.strong else "circle" for row in rows]},
        "hovertext": [f"{_shown(row.name)}<br>{row.told}" for row in rows],
        "hoverinfo": "text",
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [0 if row.high is None else row.high - row.value for row in rows],
            "arrayminus": [0 if row.low is None else row.value - row.low for row in rows],
            "thickness": 1.8,
            "width": 4,
        },
    }


def _above(name: str, place: int) -> dict[str, Any]:
    """A row's name above its mark, where a long one has room on a phone too."""
    return {
        "text": _shown(name),
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "align": "left",
        "y": place,
        "yanchor": "bottom",
        "yshift": 6,
        "showarrow": False,
    }


def _matrix(results: Results) -> Chart:
    """How often each model was preferred to each other one."""
    models = [strength.model for strength in results.strengths]
    shares: dict[tuple[str, str], float] = {}
    for part in (results.primary, *results.others):
        if part.preference is not None:
            shares[part.first, part.second] = part.preference
            shares[part.second, part.first] = 1 - part.preference
    table = [[shares.get((row, column)) for column in models] for row in models]
    names = [_shown(model, 16) for model in models]
    places = list(range(len(models)))
    cells = {
        "type": "heatmap",
        "x": places,
        "y": places,
        "z": table,
        "hoverinfo": "skip",
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "colorscale": [[0, "rgba(11,110,105,0)"], [1, "rgba(11,110,105,0.7)"]],
        "xgap": 2,
        "ygap": 2,
    }
    # Not the heatmap's own texts: their colour is chosen for a white page.
    texts = [
        {"x": column, "y": row, "text": f"{share:.0%}", "showarrow": False}
        for row, shares_of_row in enumerate(table)
        for column, share in enumerate(shares_of_row)
        if share is not None
    ]
    axis = {"tickvals": places, "ticktext": names, "fixedrange": True, "showgrid": False}
    layout = {
        "hovermode": False,
        "dragmode": False,
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "xaxis": {**axis, "side": "top", "automargin": True, "zeroline": False},
        "yaxis": {**axis, "autorange": "reversed", "automargin": True, "zeroline": False},
        "annotations": texts,
    }
    note = "Share of votes for the row's model against the column's, ties as ½."
    return Chart("Each against each", note, 110 + 40 * len(models), [cells], layout)


def _shown(name: str, line: int = LINE) -> str:
    """A name for Plotly, which takes some tags for markup, in at most two lines."""
    short = name if len(name) <= 2 * line else f"{name[: 2 * line - 1]}…"
    return "<br>".join(escape(part) for part in textwrap.wrap(short, line)[:2])
