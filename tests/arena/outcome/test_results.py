"""From simulated raters to a verdict: the truth is found, and nothing is claimed without it."""

import csv
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.arena.outcome.charts import plotly_file
from studio.arena.outcome.export import card_paragraph, insert_in_card, votes_csv
from studio.arena.outcome.power import power_curve
from studio.arena.outcome.raters import fewest_raters, rater_means
from studio.arena.outcome.report import html_report
from studio.arena.outcome.results import Results, results
from studio.arena.outcome.verdict import verdict
from studio.arena.prompts.prompt import Message
from studio.arena.rating.amending import amend
from studio.arena.rating.counted import ballots, tally
from studio.arena.rating.pack import collect, open_pack, write_pack
from studio.arena.rating.ratings import FILE, HEADER, Remarks
from studio.arena.rating.sitting import Sitting
from studio.arena.trials.answers import Generated
from studio.arena.trials.design import Compare, Model
from studio.arena.trials.generate import Ask, Speaker, generate
from studio.arena.trials.trial import Trial, fix, open_trial
from studio.errors import StudioError
from tests.arena.sample_trials import (
    MERGED,
    RIVAL,
    Parrot,
    design,
    made,
    prefers,
    prompts,
    rate_all,
)

QUIET = {"identical": 0.0, "repeats": 0.0}


@pytest.fixture(autouse=True)
def same_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides and order from known secrets, each trial its own: a test's luck is always the same."""
    stream = random.Random(1)
    monkeypatch.setattr("studio.arena.trials.trial.secrets.token_bytes", stream.randbytes)


def rate(folder: Path, rater: str, chance: float, seed: int = 1, ties: float = 0.0) -> None:
    rate_all(Sitting(folder, rater), prefers(MERGED, chance, random.Random(seed), ties))


def test_a_clear_preference_is_found_and_told(tmp_path: Path) -> None:
    trial = made(tmp_path, 40)
    rate(tmp_path, "Ann", 0.9)
    found = results(trial)
    primary = found.primary
    assert primary.claim == "first" and primary.evidence.count == 40
    assert primary.wins + primary.losses == primary.votes == 40
    assert primary.preference == primary.wins / 40 == pytest.approx(primary.evidence.mean)
    assert primary.low is not None and primary.high is not None
    assert 0.5 < primary.low < primary.preference < primary.high
    first = verdict(found)[0]
    assert first.startswith(
        f"{MERGED} is better than {RIVAL} for this rater on prompts like these 40"
    )
    assert f"settled after {primary.evidence.reached_at} prompts" in first
    strengths = {strength.model: strength.elo for strength in found.strengths}
    assert strengths[MERGED] > 0 > strengths[RIVAL]
    assert json.loads(json.dumps(found.as_data()))["primary"]["claim"] == "first"


def test_the_rival_can_win(tmp_path: Path) -> None:
    trial = made(tmp_path, 40)
    rate(tmp_path, "Ann", 0.1)
    assert results(trial).primary.claim == "second"
    assert verdict(results(trial))[0].startswith(f"{RIVAL} is better than {MERGED} for this rater")


def test_no_preference_claims_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    trial = made(tmp_path, 40)
    assert verdict(results(trial))[0].startswith(
        "No votes yet. 40 votes on 40 prompts at 30 % ties"
    )
    sitting = Sitting(tmp_path, "Ann")
    choose = prefers(MERGED, 0.5, random.Random(3), 0.3)
    for _ in range(20):
        item = sitting.next()
        assert item is not None
        sitting.vote(item.item_id, choose(item))
    partly = results(trial)
    assert partly.primary.claim == "" and 20 <= partly.primary.open_prompts <= 23
    assert f"about {needed(partly)} more votes on {needed(partly)} more" in verdict(partly)[0]
    rate_all(sitting, choose)
    done = verdict(results(trial))[0]
    assert done.startswith("Not decided, and all planned votes are in")
    assert f"{needed(results(trial))} more votes" in done


def needed(found: Results) -> int:
    """209 prompts at 30 % ties are 146 votes that are no ties; so many are needed in all. The
    share of ties is the planned one up to 20 votes, then the one seen."""
    primary = found.primary
    ties = round(primary.ties / primary.votes, 2) if primary.votes >= 20 else 0.3
    curve = power_curve(0.65, ties, 0.05)
    assert abs(146 / (1 - ties) - int(np.argmax(curve >= 0.8))) <= 3
    return int(np.argmax(curve >= 0.8)) - primary.evidence.count


def test_categories_are_told_apart(tmp_path: Path) -> None:
    trial = made(tmp_path, 80)
    stream = random.Random(4)
    story, command = (prefers(MERGED, chance, stream) for chance in (0.97, 0.5))
    rate_all(Sitting(tmp_path, "Ann"), lambda i: (story if i.category == "story" else command)(i))
    found = results(trial)
    assert {c.category: c.claim for c in found.categories} == {"story": "first", "command": ""}
    assert any("story better for this rater; command unclear" in line for line in verdict(found))
    assert [c.p_value for c in found.categories] == sorted(c.p_value for c in found.categories)


def test_ties_are_half_and_both_bad_counts_for_nothing(tmp_path: Path) -> None:
    trial = made(tmp_path, 12, **QUIET)
    words = iter(["a", "tie", "both_bad"] * 4)
    rate_all(Sitting(tmp_path, "Ann"), lambda item: next(words))
    primary = results(trial).primary
    assert (primary.votes, primary.ties, primary.both_bad) == (12, 4, 4)
    assert (primary.evidence.count, primary.without_preference, primary.open_prompts) == (8, 4, 0)
    assert primary.preference == (primary.wins + 2) / 8


def test_excluded_votes_are_shown_and_do_not_count(tmp_path: Path) -> None:
    trial = made(tmp_path, 12, **QUIET)
    sitting = Sitting(tmp_path, "Ann")
    number = 0
    while (item := sitting.next()) is not None:
        sitting.vote(item.item_id, "a", Remarks(recognised=number % 3 == 0))
        number += 1
    found = results(trial)
    assert found.excluded == {"recognised": 4} and found.primary.excluded == 4
    assert found.primary.wins + found.primary.losses == 8
    views = {view.name: view.votes for view in found.adjusted}
    assert views["with all excluded votes"] == 12 and views["without recognised models"] == 8
    amend(tmp_path, {"exclusions": {"recognised": False}}, "all know the style")
    amended = results(open_trial(tmp_path))
    assert amended.primary.excluded == 0 and len(amended.amendments) == 1
    assert any("amended once" in line for line in verdict(amended))
    (amendment,) = amended.amendments
    assert amendment["votes"] == 12 and amendment["words"] == "leave out recognised: true → false"
    report = html_report(amended, ballots(open_trial(tmp_path)))
    assert "all know the style" in report and amendment["words"] in report


def test_an_exploring_trial_claims_nothing(tmp_path: Path) -> None:
    trial = made(tmp_path, 40, alpha=0.0)
    rate(tmp_path, "Ann", 1.0)
    assert results(trial).primary.claim == ""
    assert verdict(results(trial))[0].startswith("Explored, nothing is claimed")


class Forgetful(Parrot):
    """A parrot whose context has no room for the first two messages of some prompts."""

    def __init__(self, label: str, forgets: Sequence[str]) -> None:
        super().__init__(label)
        self.forgets = forgets

    def answer(self, ask: Ask) -> Generated:
        return replace(super().answer(ask), left_out=2 * (ask.prompt.id in self.forgets))


def long_talks(folder: Path, forgets: Mapping[str, Sequence[str]]) -> Trial:
    """A trial of four conversations of five messages."""

    @contextmanager
    def forgetful(model: Model) -> Iterator[Speaker]:
        yield Forgetful(model.label, forgets[model.label])

    turns = tuple(Message("assistant" if n % 2 else "user", f"turn {n}") for n in range(5))
    trial = fix(folder, design(), [replace(p, messages=turns) for p in prompts(4)])
    generate(trial, forgetful)
    return trial


def test_what_was_trimmed_is_listed_and_an_uneven_pair_is_a_caution(tmp_path: Path) -> None:
    trial = long_talks(tmp_path, {MERGED: ["p1"], RIVAL: ["p3", "p1"]})
    found = results(trial)
    note = "the oldest 2 of 5 messages were left out"
    listed = [(row.prompt, row.model, row.note) for row in found.trimming.rows]
    assert listed == [("p1", MERGED, note), ("p1", RIVAL, note), ("p3", RIVAL, note)]
    assert found.as_data()["trimming"]["uneven"] == [
        {"first": MERGED, "second": RIVAL, "prompts": ["p3"]}
    ]
    words = verdict(found)
    assert any(line.startswith("2 of 4 prompts did not fit a model's context") for line in words)
    assert any("did not get the same messages of 1 of 4 prompts" in line for line in words)
    report = html_report(found, ballots(trial)).replace(plotly_file().read_text(), "")
    assert f"<tr><td>p3</td><td>{RIVAL}</td><td>{note}</td></tr>" in report


def test_what_was_trimmed_evenly_or_not_at_all_is_no_caution(tmp_path: Path) -> None:
    even = results(long_talks(tmp_path / "even", {MERGED: ["p1"], RIVAL: ["p1"]}))
    assert len(even.trimming.rows) == 2 and even.trimming.uneven == ()
    assert not any("same messages" in line for line in verdict(even))
    whole = results(made(tmp_path / "whole", 4))
    assert whole.trimming.rows == () and not any("context" in line for line in verdict(whole))


def test_numbers_below_zero_have_a_true_minus_in_the_report(tmp_path: Path) -> None:
    trial = made(tmp_path, 20)
    rate(tmp_path, "Ann", 0.9)
    found = results(trial)
    less = replace(found, noise=replace(found.noise, alpha=-0.156))
    report = html_report(less, ballots(trial)).replace(plotly_file().read_text(), "")
    assert "<td>−0.16</td>" in report and '<td class="n">−' in report
    assert not re.search(r"<td[^>]*>-\d", report) and " to -" not in report


def test_a_trial_that_must_not_stop_early_waits(tmp_path: Path) -> None:
    trial = made(tmp_path, 40, stop_early=False, **QUIET)
    sitting = Sitting(tmp_path, "Ann")
    choose = prefers(MERGED, 1.0, random.Random(1))
    for _ in range(30):
        item = sitting.next()
        assert item is not None
        sitting.vote(item.item_id, choose(item))
    assert results(trial).primary.evidence.reached_at == 9
    assert results(trial).primary.claim == ""
    rate_all(sitting, choose)
    assert results(trial).primary.claim == "first"


def test_later_raters_do_not_move_the_decisive_test(tmp_path: Path) -> None:
    trial = made(tmp_path, 20, **QUIET)
    rate(tmp_path, "Ann", 0.9, 2)
    before = results(trial)
    rate(tmp_path, "Bob", 0.0, 3)
    after = results(trial)
    assert after.primary.evidence == before.primary.evidence
    assert (before.primary.votes, after.primary.votes) == (20, 40)
    assert [rater.name for rater in after.raters] == ["Ann", "Bob"]
    told = [any("Two raters" in line for line in verdict(found)) for found in (before, after)]
    assert told == [False, True]
    assert (before.primary.raters, after.primary.raters) == (1, 1)
    assert "for this rater, the first of 2, on prompts like these 20" in verdict(after)[0]
    assert (after.raters[1].preference, after.noise.shared) == (0.0, 20)
    assert "Ann" not in verdict(after)[0]


def judged_by_all(folder: Path, raters: int, pairs: int = 1, **chances: float) -> Results:
    """A trial on so many pairs for each rater, who all prefer the merge, or with these chances."""
    trial = made(folder, raters * pairs, raters=raters, **QUIET)
    for number in range(raters):
        rate(folder, name := f"rater-{number}", chances.get(name.replace("-", "_"), 1.0), number)
    return results(trial)


def test_few_raters_are_not_taken_for_others(tmp_path: Path) -> None:
    found = judged_by_all(tmp_path, 3, 4)
    assert found.primary.claim == "first" and found.primary.raters == 3
    assert not found.reach.holds and found.reach.evidence.count == 3
    first, second = verdict(found)[:2]
    assert "for these 3 raters together on prompts like these 12" in first
    assert second == (
        "This says nothing of other raters: 3 raters have judged all their pairs, at least 9 who "
        "prefer it as much would be needed for that."
    )
    assert f"{first} {second}" in card_paragraph(found)


@pytest.mark.parametrize("raters", [8, 9])
def test_raters_like_these_are_spoken_of_from_nine_on(tmp_path: Path, raters: int) -> None:
    found = judged_by_all(tmp_path, raters, 2)
    assert found.primary.claim == "first"
    assert found.reach.holds == (raters == 9)
    told = [line.startswith("Raters like them prefer merged too") for line in verdict(found)]
    assert told[1] == (raters == 9) and not any(told[2:])
    assert json.loads(json.dumps(found.as_data()))["reach"]["fewest"] == 9


def test_a_rater_counts_for_others_when_done(tmp_path: Path) -> None:
    trial = made(tmp_path, 20, raters=2, **QUIET)
    sitting = Sitting(tmp_path, "Ann")
    for left in reversed(range(10)):
        item = sitting.next()
        assert item is not None
        for_merged = "a" if item.a.startswith(MERGED) else "b"
        sitting.vote(item.item_id, "tie" if left == 9 else for_merged)
        assert rater_means(trial, ballots(trial)) == ([] if left else [0.95])
    rate_all(Sitting(tmp_path, "Bob"), lambda item: "both_bad")
    assert rater_means(trial, ballots(trial)) == [0.95], "of whom no vote counts there is none"


def test_raters_who_lean_otherwise_leave_others_open(tmp_path: Path) -> None:
    trial = made(tmp_path, 20, **QUIET)
    rate(tmp_path, "Ann", 1.0)
    for number in range(12):
        rate(tmp_path, f"rater-{number}", 0.0, number)
    found = results(trial)
    assert found.primary.claim == "first" and found.primary.raters == 1
    assert found.reach.evidence.reached_at is not None and not found.reach.holds
    assert "for this rater, the first of 13," in verdict(found)[0]
    assert "13 raters have judged all their pairs, and prefer it too little" in verdict(found)[1]


def test_fewest_raters_against_the_closed_form() -> None:
    # k raters wholly for it: 6 · 2^k / ((k + 2)(k + 3)) passes 20 at k = 9
    assert fewest_raters(1.0, 0.05) == 9
    assert fewest_raters(0.605, 0.05) == 34
    assert fewest_raters(0.5, 0.05) is fewest_raters(0.501, 0.05) is None


def test_a_prompt_is_complete_with_all_its_planned_votes(tmp_path: Path) -> None:
    trial = made(tmp_path, 8, votes_per_prompt=2, **QUIET)
    sitting = Sitting(tmp_path, "Ann")
    choose = prefers(MERGED, 1.0, random.Random(1))
    for _ in range(10):
        item = sitting.next()
        assert item is not None
        sitting.vote(item.item_id, choose(item))
    given = [ballot.item.prompt for ballot in ballots(trial)]
    twice = [prompt for prompt in dict.fromkeys(given) if given.count(prompt) == 2]
    found = tally(ballots(trial), (MERGED, RIVAL), trial)
    assert sorted(found.prompts) == sorted(twice) and found.open == 8 - len(twice)
    assert set(found.preferences) == {1.0}


def test_noise_and_side_bias_are_measured(tmp_path: Path) -> None:
    trial = made(tmp_path, 40, identical=0.1, repeats=0.1)
    rate_all(Sitting(tmp_path, "Ann"), lambda item: "a")
    found = results(trial)
    assert (found.noise.identical, found.noise.called_ties) == (4, 0)
    assert (found.noise.repeats, found.noise.same) == (4, 0), "always left: sides were swapped"
    assert (found.left_wins.count, found.left_wins.total) == (40, 40)
    assert found.primary.wins == found.primary.losses == 20, "sides are balanced"
    assert any("The left answer won 40 of 40" in line for line in verdict(found))


def test_several_models_are_compared_and_corrected(tmp_path: Path) -> None:
    three = tuple(Model(label, label) for label in (MERGED, RIVAL, "third"))
    trial = made(tmp_path, 30, models=three, compare=Compare.ALL, **QUIET)
    rate(tmp_path, "Ann", 0.95)
    found = results(trial)
    assert [(c.first, c.second) for c in found.others] == [(MERGED, "third"), (RIVAL, "third")]
    assert found.primary.claim == found.others[0].claim == "first" and found.others[1].claim == ""
    assert [strength.model for strength in found.strengths][0] == MERGED


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("design_hash", "0" * 64, "belongs to another trial"),
        ("answer_a", "0" * 32, "its answers are not those"),
        ("item", "0" * 16, "the trial has no item"),
        ("model_a", "third", "its models are not those"),
    ],
)
def test_rows_of_elsewhere_are_refused(tmp_path: Path, column: str, value: str, told: str) -> None:
    trial = made(tmp_path, 6)
    rate(tmp_path, "Ann", 1.0)
    lines = (tmp_path / FILE).read_text().splitlines()
    cells = next(csv.reader([lines[3]]))
    cells[HEADER.split(",").index(column)] = value
    lines[3] = ",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in cells)
    (tmp_path / FILE).write_text("\n".join([*lines, ""]))
    with pytest.raises(StudioError, match=told):
        ballots(trial)


def test_a_pack_names_no_model_and_its_votes_come_home(tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "trial.zip"
    trial = made(home, 12, name="secret-name")
    write_pack(trial, out)
    folder = open_pack(out, tmp_path / "elsewhere")
    for path in folder.iterdir():
        data = path.read_text()
        for name in ("models/", trial.secret.hex(), "fingerprint", '"model"', 'seed": 1'):
            assert name not in data, path
        # the parrots name themselves in their texts; nothing else may
        assert MERGED not in data.replace(f"{MERGED} says", "") and "primary" not in data
    rate(folder, "Ann", 0.9)
    rows = list(csv.DictReader((folder / FILE).open()))
    assert {row["model_a"] for row in rows} == {"sealed"}
    with pytest.raises(StudioError, match="does not know its models"):
        Sitting(folder, "Ann").reveal(rows[0]["item"])
    assert open_pack(out, tmp_path / "elsewhere") == folder
    done = collect(trial, [folder])
    assert (done.taken, done.known, done.refused) == (14, 0, 0)
    again = collect(trial, [folder / FILE])
    assert (again.taken, again.known) == (0, 14)
    assert {row["model_a"] for row in csv.DictReader((home / FILE).open())} == {MERGED, RIVAL}
    rate(tmp_path / "home", "Ann", 0.0)
    found = results(trial)
    assert found.primary.votes == 12 and found.primary.wins > found.primary.losses


def test_a_pack_for_another_rater_begins_with_that_raters_items(tmp_path: Path) -> None:
    trial = made(tmp_path / "home", 12, raters=2)
    write_pack(trial, tmp_path / "two.zip", rater=2)
    folder = open_pack(tmp_path / "two.zip", tmp_path)
    item = Sitting(folder, "Bob").next()
    assert item is not None and item.item_id == trial.schedule[1][0].id
    with pytest.raises(StudioError, match="planned for 2"):
        write_pack(trial, tmp_path / "three.zip", rater=3)
    (tmp_path / "no.zip").write_bytes(b"PK nonsense")
    with pytest.raises(StudioError, match=r"no.zip: is not a trial pack"):
        open_pack(tmp_path / "no.zip", tmp_path)


def test_exports_are_what_others_read(tmp_path: Path) -> None:
    trial = made(tmp_path, 20)
    sitting = Sitting(tmp_path, "Ann")
    choose = prefers(MERGED, 0.9, random.Random(1))
    while (item := sitting.next()) is not None:
        sitting.vote(
            item.item_id, choose(item), Remarks(comment='<script>alert("x")</script> =1+1')
        )
    every = ballots(trial)
    rows = list(csv.DictReader(votes_csv(every).splitlines()))
    assert len(rows) == 20 and {row["kind"] for row in rows} == {"counted"}
    assert {row["winner"] for row in rows} <= {"model_a", "model_b", "tie", "tie (bothbad)"}
    whole, library = html_report(results(trial), every), plotly_file().read_text()
    assert whole.count(library) == 1
    report = whole.replace(library, "")
    assert report.count("<script>") == report.count("</script>") == 2
    assert "<script>alert" not in report and "&lt;script&gt;alert" in report
    assert "src=" not in report and "http" not in report, "nothing from elsewhere"
    text = card_paragraph(results(trial))
    assert text.startswith(f"**Blind comparison.** {MERGED} is better than {RIVAL}")
    assert "20 votes by 1 rater on 20 prompts" in text


def test_the_card_gets_the_paragraph_once_and_keeps_the_rest(tmp_path: Path) -> None:
    trial, model = made(tmp_path / "trial", 4), tmp_path / "model"
    with pytest.raises(StudioError, match="README.md: no model card can be read here"):
        insert_in_card(results(trial), model)
    model.mkdir()
    card = model / "README.md"
    card.write_text("---\nlicense: mit\n---\n\n# Mine\n")
    insert_in_card(results(trial), model)
    first = card.read_text()
    assert first.startswith("---\nlicense: mit\n---\n\n# Mine\n\n## Evaluation\n")
    assert card_paragraph(results(trial)) in first
    card.write_text(first + "\nMy last words.\n")
    sitting = Sitting(tmp_path / "trial", "Ann")
    item = sitting.next()
    assert item is not None
    sitting.vote(item.item_id, "tie")
    insert_in_card(results(trial), model)
    again = card.read_text()
    assert card_paragraph(results(trial)) in again and card_paragraph(results(trial)) not in first
    assert again.count("**Blind comparison.**") == 1 and again.endswith("My last words.\n")


def simulated(stream: random.Random, chance: float) -> Any:
    """A rater with effects of their own on prompts; 30 of 100 votes tie."""
    effects: dict[str, float] = {}

    def choose(item: Any) -> str:
        effect = effects.setdefault(item.messages[0].content, stream.gauss(0, 0.2))
        tilt = min(max(chance + effect, 0.02), 0.98)
        choice: str = prefers(MERGED, tilt, stream, 0.3)(item)
        return choice

    return choose


def test_whole_trials_find_what_is_there(tmp_path: Path) -> None:
    """Six whole trials: a strong true preference is claimed, the right way round; none is not."""
    for number in range(3):
        for chance, claims in ((0.95, {"first"}), (0.5, {""})):
            folder = tmp_path / f"{number}-{chance}"
            trial = made(folder, 60)
            rate_all(Sitting(folder, "Ann"), simulated(random.Random(number), chance))
            assert {results(trial).primary.claim} == claims, (number, chance)
