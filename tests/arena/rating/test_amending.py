"""Amending a trial: what it was is kept, and only the little that may change does."""

from pathlib import Path

import pytest

from studio.arena.rating.amending import amend
from studio.arena.trials.design import Exclusions, Reveal
from studio.arena.trials.trial import fix
from studio.errors import StudioError
from tests.arena.sample_trials import design, prompts


def test_amendments_are_kept_with_reason_and_time(tmp_path: Path) -> None:
    first = fix(tmp_path, design(), prompts(4))
    amend(tmp_path, {"reveal": "each"}, "raters asked for it")
    found = amend(tmp_path, {"exclusions": {"masked": True}}, "too many names")
    assert found.design.reveal is Reveal.EACH
    assert found.design.exclusions == Exclusions(masked=True)
    assert found.hash == first.hash and found.schedule == first.schedule
    assert [(a["why"], a["votes"]) for a in found.amendments] == [
        ("raters asked for it", 0),
        ("too many names", 0),
    ]
    assert found.amendments[0]["was"] == {"reveal": "end"}
    again = amend(
        tmp_path, {"exclusions": {"faster_than": 2.0}, "reveal": "each"}, "too quick to read"
    )
    assert again.design.exclusions == Exclusions(masked=True, faster_than=2.0), "masked stays"
    assert list(again.amendments[2]["changes"]) == ["exclusions"]
    with pytest.raises(StudioError, match="nothing would change"):
        amend(tmp_path, {"reveal": "each"}, "again")
    with pytest.raises(StudioError, match="alpha: cannot be amended"):
        amend(tmp_path, {"alpha": 0.01}, "why not")
    with pytest.raises(StudioError, match="needs a reason"):
        amend(tmp_path, {"reveal": "end"}, " ")
