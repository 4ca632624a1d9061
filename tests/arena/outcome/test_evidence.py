"""The decisive test: closed forms, and its error rate and coverage under peeking."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.arena.outcome.evidence import evidence, holm, interval, log_e_values
from studio.arena.outcome.power import odds, plan
from tests.arena.sample_trials import design


def beta(a: float, b: float) -> float:
    return math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))


@given(wins=st.integers(0, 60), losses=st.integers(0, 60), ties=st.integers(0, 30))
def test_e_value_of_whole_votes_has_a_closed_form(wins: int, losses: int, ties: int) -> None:
    values = np.array([1.0] * wins + [0.5] * ties + [0.0] * losses)
    if not len(values):
        return
    expected = 2.0 ** (wins + losses) * beta(2 + wins, 2 + losses) / beta(2, 2)
    assert math.exp(log_e_values(values)[-1]) == pytest.approx(expected, rel=1e-9)


def test_e_value_of_one_partial_prompt_follows_from_the_formula() -> None:
    # one prompt with preference 3/4: the mean over θ of 2(¾θ + ¼(1 − θ)) is 1, whatever the prior
    assert math.exp(log_e_values(np.array([0.75]))[-1]) == pytest.approx(1.0)
    # two of them: E[(½ + θ)²] = ¼ + E[θ] + E[θ²] with E[θ²] = 1/4 + 1/20 for Beta(2, 2)
    assert math.exp(log_e_values(np.array([0.75, 0.75]))[-1]) == pytest.approx(0.25 + 0.5 + 0.3)


def test_evidence_tells_when_it_was_settled() -> None:
    found = evidence([1.0] * 9, 0.05)
    # 2^n B(2+n, 2)/B(2, 2) = 6·2^n/((n+2)(n+3)) passes 20 at n = 9
    assert [6 * 2**n / ((n + 2) * (n + 3)) >= 20 for n in (8, 9)] == [False, True]
    assert (found.count, found.reached_at, found.best_mean) == (9, 9, 1.0)
    assert found.e_value == pytest.approx(6 * 512 / (11 * 12))
    later = evidence([1.0] * 9 + [0.0] * 9, 0.05)
    assert later.reached_at == 9 and later.e_value < 1 and later.best == pytest.approx(found.best)
    assert (later.mean, later.best_mean) == (0.5, 1.0)
    assert evidence([1.0] * 40, 0.0).reached_at is None
    assert evidence([], 0.05).e_value == 1.0


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40))
def test_interval_excludes_half_exactly_when_the_test_does(values: list[float]) -> None:
    found = evidence(values, 0.05)
    low, high = interval(np.array(values), 0.05)
    assert (found.e_value >= 20) == (not low <= 0.5 <= high)
    swapped = interval(1 - np.array(values), 0.05)
    assert swapped == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert low <= np.mean(values) <= high


def test_interval_ends_where_the_formula_says() -> None:
    # after n wins the means m with E(m) = m^-n · B(2+n, 2)/B(2, 2) < 20 are left
    low, high = interval(np.ones(10), 0.05)
    assert (low, high) == (pytest.approx((beta(12, 2) / beta(2, 2) / 20) ** 0.1, abs=1e-4), 1.0)


def test_interval_covers_the_truth_at_every_look() -> None:
    random = np.random.default_rng(11)
    missed = 0
    for _ in range(60):
        values = np.where(random.random(60) < 0.3, 0.5, random.random(60) < 0.65).astype(float)
        truth = 0.3 * 0.5 + 0.7 * 0.65
        looks = (interval(values[:n], 0.05) for n in (10, 20, 40, 60))
        missed += any(not low <= truth <= high for low, high in looks)
    assert missed <= 3


def test_the_plan_is_told_in_words() -> None:
    told = plan(design(), 60)
    assert told.power == pytest.approx(0.2359, abs=1e-4) and told.needed == 209
    assert told.sentence() == (
        "60 votes on 60 prompts at 30 % ties find a true 65 % preference in about one trial of "
        "four (24 %); 209 prompts would find it in eight trials of ten"
    )
    assert "nothing is claimed" in plan(design(alpha=0.0), 60).sentence()


def test_the_plan_tells_for_whom_a_claim_will_hold() -> None:
    assert plan(design(), 60).scope() == (
        "A claim will be about this one rater, on prompts like these; the 65 % are theirs. To "
        "speak of raters like them too, 43 raters who rate 60 pairs each would be needed (if "
        "raters differ by 15 points)"
    )
    many = plan(design(raters=20, votes_per_prompt=5, expect=0.8), 100)
    assert many.reach == pytest.approx(0.72, abs=0.04) and many.raters_needed in range(20, 24)
    assert "these 20 raters together" in many.scope()
    assert f"reach raters like them, on these prompts, in {odds(many.reach)}" in many.scope()
    assert plan(design(alpha=0.0), 60).scope() == ""


@pytest.mark.parametrize(
    ("chance", "words"),
    [
        (0.01, "hardly any trial"),
        (0.25, "about one trial of four"),
        (0.5, "about one trial of two"),
        (0.66, "about two trials of three"),
        (0.93, "about nine trials of ten"),
        (0.99, "nearly every trial"),
    ],
)
def test_odds_in_words(chance: float, words: str) -> None:
    assert odds(chance) == words


def test_holm_against_a_worked_example() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives 0.03 0.06 0.06 0.02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]
