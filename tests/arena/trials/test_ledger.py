"""A project's error budget and its burnt prompts."""

from dataclasses import replace
from pathlib import Path

import pytest

from studio.arena.trials.ledger import BUDGET, Ledger
from studio.arena.trials.trial import begin
from studio.errors import StudioError
from tests.arena.sample_trials import design, prompts


def test_trials_spend_the_projects_budget(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enter(design(name="one", alpha=0.03), prompts(4))
    ledger.enter(design(name="one", alpha=0.03), prompts(4))
    assert ledger.account("project").left == pytest.approx(0.02)
    with pytest.raises(StudioError, match=r'"project" has 0.02 of its .* \(spent on: one\)'):
        ledger.enter(design(name="two", alpha=0.03), prompts(4))
    ledger.enter(design(name="two", alpha=0.02), prompts(4))
    ledger.enter(design(name="free", alpha=0.0), prompts(4))
    ledger.enter(design(name="else", project="other", seen_prompts=True), prompts(4))
    assert ledger.account("project").trials == ("one", "two")


def test_what_exploring_has_seen_is_burnt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enter(design(name="look", alpha=0.0), prompts(4))
    ledger.enter(design(name="look-again", alpha=0.0), prompts(4))
    with pytest.raises(StudioError, match=r"4 of 6 prompts have been seen .*\(p0, p1, p2, p3\)"):
        ledger.enter(design(name="judge"), prompts(6))
    ledger.enter(design(name="judge"), prompts(9)[4:])
    ledger.burn(design(name="judge"), prompts(9)[4:], "results read")
    ledger.burn(design(name="judge"), prompts(9)[4:], "results read")
    assert len(ledger.account("project").burnt) == 9
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 4
    with pytest.raises(StudioError, match="1 of 1 prompts have been seen"):
        ledger.enter(design(name="more", project="new"), prompts(9)[8:])
    ledger.enter(design(name="more", project="new", seen_prompts=True), prompts(9)[8:])


def test_exploring_spends_sealed_prompts_only_where_it_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    asked = [replace(prompt, sealed=n < 3) for n, prompt in enumerate(prompts(9))]
    for sealed in (None, False):  # False with sealed prompts: chosen by hand, past `choose`
        with pytest.raises(StudioError, match="3 of 9 prompts are sealed, which is for verdicts"):
            ledger.enter(design(name="look", alpha=0.0, sealed=sealed), asked)
    assert not ledger.account("project").burnt
    ledger.enter(design(name="judge"), asked)
    ledger.enter(design(name="look", alpha=0.0), asked[3:])
    ledger.enter(design(name="spend", alpha=0.0, sealed=True), asked[:3])
    assert len(ledger.account("project").burnt) == 9


@pytest.mark.parametrize(("count", "message"), [(0, "has no prompts"), (1, "twice in a row")])
def test_trial_that_cannot_be_fixed_spends_nothing(
    tmp_path: Path, count: int, message: str
) -> None:
    impossible = design(alpha=BUDGET, votes_per_prompt=2)
    with pytest.raises(StudioError, match=message):
        begin(tmp_path, impossible, prompts(count))
    assert Ledger(tmp_path).account("project").left == BUDGET
    assert not (tmp_path / "trial").exists()
    begin(tmp_path, design(alpha=BUDGET), prompts(4))
    assert Ledger(tmp_path).account("project").left == 0
