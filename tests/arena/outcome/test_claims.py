"""What is claimed, and how often that is false, in simulated trials that are looked at after every
prompt: raters differ, prompts differ, 30 of 100 votes tie."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio.arena.outcome.evidence import log_e_values
from studio.arena.outcome.power import SPREAD, plan, power_curve
from tests.arena.sample_trials import design

Array = NDArray[np.float64]
ALPHA, TIES = 0.05, 0.3
RATERS = (1, 3, 8, 20)
RUNS = (1000, pytest.param(10_000, marks=pytest.mark.slow))


def free_tastes(random: np.random.Generator, shape: tuple[int, int], mean: float = 0.5) -> Array:
    """What each rater prefers in votes that are no ties: drawn about the population's mean."""
    return random.uniform(mean - 0.26, mean + 0.26, shape)  # standard deviation 0.15


def these(tastes: Array, mean: float = 0.5) -> Array:
    """Raters whose tastes have exactly this mean in each trial."""
    return tastes - tastes.mean(axis=1, keepdims=True) + mean


def cast(random: np.random.Generator, tastes: Array, effects: Array) -> Array:
    """Votes by raters of these tastes on prompts with these effects, from -1 to 1 with mean 0."""
    chance = tastes + 0.7 * np.minimum(tastes, 1 - tastes) * effects
    votes = (random.random(chance.shape) < chance).astype(float)
    votes[random.random(chance.shape) < TIES] = 0.5
    return votes


def claims(values: Array) -> tuple[Array, Array]:
    """For each trial which way its units' evidence was settled (1, -1, or 0), and after how many
    of them it was largest."""
    logs = np.concatenate(
        [
            log_e_values(part, nodes=32)
            for part in np.array_split(values, max(values.size // 10**5, 1))
        ]
    )
    best = logs.argmax(axis=1) + 1
    means = np.cumsum(values, axis=1)[np.arange(len(values)), best - 1] / best
    return np.where(logs.max(axis=1) >= -math.log(ALPHA), np.sign(means - 0.5), 0), best


def one_vote_a_prompt(
    random: np.random.Generator, tastes: Array, prompts: int, order: str
) -> tuple[Array, Array]:
    """Votes (trials, prompts) in the order given, and the taste of the rater of each."""
    runs, raters = tastes.shape
    turn = np.arange(prompts) % raters
    if order == "one by one":
        turn = np.sort(turn)
    by = tastes[:, random.permutation(turn) if order == "mixed" else turn]
    return cast(random, by, random.uniform(-1, 1, (runs, prompts))), by


def naive(values: Array) -> float:
    """How often a test for a fixed number of units finds something, looked at all the time."""
    sums, squares = np.cumsum(values - 0.5, axis=1), np.cumsum((values - 0.5) ** 2, axis=1)
    return float((np.abs(sums / np.sqrt(squares + 1e-9))[:, 9:].max(axis=1) > 1.96).mean())


@pytest.mark.parametrize("raters", RATERS)
@pytest.mark.parametrize("runs", RUNS)
def test_no_preference_of_these_raters_is_rarely_claimed_to_be_one(raters: int, runs: int) -> None:
    random = np.random.default_rng(raters)
    tastes = these(free_tastes(random, (runs, raters)))
    votes, _ = one_vote_a_prompt(random, tastes, 160, "mixed")
    assert np.abs(claims(votes)[0]).mean() <= ALPHA
    assert naive(votes) > 0.2
    shared = random.uniform(-1, 1, (runs, 1, 80))
    every = cast(random, tastes[:, :, None], shared).mean(axis=1)  # all judge all prompts
    assert np.abs(claims(every)[0]).mean() <= ALPHA


@pytest.mark.parametrize("order", ["mixed", "one by one"])
@pytest.mark.parametrize("raters", RATERS)
def test_a_claim_is_true_of_the_raters_whose_votes_it_rests_on(raters: int, order: str) -> None:
    """Whoever they are, and in whatever order they come."""
    random = np.random.default_rng(raters)
    for tastes in (free_tastes(random, (1000, raters)), these(free_tastes(random, (1000, raters)))):
        votes, by = one_vote_a_prompt(random, tastes, 160, order)
        side, best = claims(votes)
        truth = np.cumsum(by, axis=1)[np.arange(len(by)), best - 1] / best - 0.5
        assert (side * truth < 0).mean() <= ALPHA


def test_a_claim_is_not_about_raters_who_come_later() -> None:
    random = np.random.default_rng(2)
    tastes = these(free_tastes(random, (1000, 3)))
    votes, _ = one_vote_a_prompt(random, tastes, 160, "one by one")
    assert np.abs(claims(votes)[0]).mean() > 2 * ALPHA, "all three together prefer neither"


@pytest.mark.parametrize("raters", [*RATERS, 60])
@pytest.mark.parametrize("runs", RUNS)
def test_no_preference_of_the_population_is_rarely_claimed_to_be_one(
    raters: int, runs: int
) -> None:
    random = np.random.default_rng(raters)
    skewed = np.where(random.random((runs, raters)) < 0.25, 0.95, 0.35)  # with mean ½
    camps = np.where(random.random((runs, raters)) < 0.5, 0.98, 0.02)
    for tastes in (free_tastes(random, (runs, raters)), skewed, camps):
        effects = random.uniform(-1, 1, (runs, raters, 60 if raters == 1 else 20))
        votes = cast(random, tastes[:, :, None], effects)
        these_raters, _ = claims(votes.transpose(0, 2, 1).reshape(runs, -1))
        alike, _ = claims(votes.mean(axis=2))
        assert np.abs(alike).mean() <= ALPHA
        assert ((alike != 0) & (alike == these_raters)).mean() <= ALPHA
        if raters < 9:
            assert not alike.any(), "too few to show anything"
            assert np.abs(these_raters).mean() > ALPHA, "these do differ from the population"
        elif raters > 10:
            assert naive(votes.mean(axis=2)) > 2 * ALPHA


def test_raters_like_these_are_spoken_of_on_these_prompts_only() -> None:
    random = np.random.default_rng(9)
    tastes, drawn = free_tastes(random, (1000, 60)), random.uniform(-1, 1, (1000, 1, 10))
    alike = [
        np.abs(claims(cast(random, tastes[:, :, None], effects).mean(axis=2))[0]).mean()
        for effects in (drawn - drawn.mean(axis=2, keepdims=True), drawn)
    ]
    assert alike[0] <= ALPHA < alike[1]


@pytest.mark.parametrize("votes", [1, 3])
@pytest.mark.parametrize("raters", RATERS)
def test_stated_power_is_what_trials_with_different_raters_reach(raters: int, votes: int) -> None:
    random = np.random.default_rng(raters)
    prompts = 120 if votes == 1 else 60
    tastes = these(free_tastes(random, (2000, raters)), 0.65)
    who = (np.arange(prompts)[:, None] + np.arange(votes)) % raters  # as the schedule has it
    effects = random.uniform(-1, 1, (2000, prompts, 1))
    values = cast(random, tastes[:, who], effects).mean(axis=2)
    found = (claims(values)[0] == 1).mean()
    assert found == pytest.approx(power_curve(0.65, TIES, ALPHA, votes)[prompts], abs=0.05)


@pytest.mark.parametrize(
    ("changes", "prompts"),
    [
        ({"raters": 20, "votes_per_prompt": 5, "expect": 0.75}, 100),
        ({"raters": 40, "votes_per_prompt": 8, "expect": 0.7}, 60),
        ({"raters": 60, "votes_per_prompt": 1, "expect": 0.7}, 180),
        ({"raters": 8, "votes_per_prompt": 8, "expect": 0.65}, 60),
    ],
)
def test_stated_reach_is_what_trials_with_drawn_raters_have(
    changes: dict[str, Any], prompts: int
) -> None:
    told = plan(design(draws=3, **changes), prompts)
    random = np.random.default_rng(4)
    spread = told.preference * (1 - told.preference) / SPREAD**2 - 1
    shape = (1000, told.raters)
    tastes = random.beta(told.preference * spread, (1 - told.preference) * spread, shape)
    effects = random.uniform(-1, 1, (1000, 1, told.each))
    votes = cast(random, tastes[:, :, None], effects - effects.mean(axis=2, keepdims=True))
    these_raters, _ = claims(votes.transpose(0, 2, 1).reshape(1000, -1))
    both = (these_raters == 1) & (claims(votes.mean(axis=2))[0] == 1)
    assert both.mean() == pytest.approx(told.reach, abs=0.05)
