"""Strengths and clustered errors against published and closed-form answers."""

import math
from itertools import combinations

import numpy as np
import pytest

from studio.arena.outcome.agreement import krippendorff_alpha
from studio.arena.outcome.regression import (
    Clusters,
    bradley_terry,
    clustered_mean,
    logistic,
    student_quantile,
    wilson,
)

# Wins of the row over the column, American League East 1987: Agresti, Categorical Data Analysis,
# 2nd edition (2002), p. 438. Estimates without a prior, Baltimore being 0, as printed
# in Turner and Firth, Bradley-Terry Models in R, Journal of Statistical Software 48 (2012).
TEAMS = ["Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore"]
WINS = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]
PUBLISHED = [1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0]


def alone(count: int) -> Clusters:
    """Every vote a cluster of its own."""
    return Clusters(["one rater"] * count, [str(number) for number in range(count)])


def test_bradley_terry_gives_the_published_baseball_strengths() -> None:
    battles = [
        (TEAMS[i], TEAMS[j], float(won))
        for i, j in combinations(range(7), 2)
        for won, times in ((1, WINS[i][j]), (0, WINS[j][i]))
        for _ in range(times)
    ]
    found = {s.model: s.elo for s in bradley_terry(battles, alone(len(battles)), prior_sd=1e4)}
    scale = math.log(10) / 400
    assert [scale * (found[team] - found["Baltimore"]) for team in TEAMS] == pytest.approx(
        PUBLISHED, abs=1e-4
    )


def test_two_models_follow_from_one_equation() -> None:
    """With d the difference of two strengths of prior variance s² each: Σ(y − σ(d)) = d/(2s²)."""
    battles = [("x", "y", 1.0)] * 5
    one, other = bradley_terry(battles, alone(5), prior_sd=1.0)
    d = (one.elo - other.elo) * math.log(10) / 400
    assert (one.model, 5 * (1 - 1 / (1 + math.exp(-d)))) == ("x", pytest.approx(d / 2, rel=1e-8))
    assert one.elo == -other.elo and one.low < one.elo < one.high < 1000


def test_swapping_all_sides_changes_nothing() -> None:
    random = np.random.default_rng(1)
    battles = [("x", "y", float(v)) for v in random.choice([0, 0.5, 1], 30)]
    battles += [("y", "z", float(v)) for v in random.choice([0, 0.5, 1], 30)]
    swapped = [(second, first, 1 - value) for first, second, value in battles]
    for one, other in zip(
        bradley_terry(battles, alone(60)), bradley_terry(swapped, alone(60)), strict=True
    ):
        assert one.model == other.model
        assert (one.elo, one.low, one.high) == pytest.approx((other.elo, other.low, other.high))


def test_unclustered_errors_are_those_of_the_binomial() -> None:
    values = np.array([1.0] * 60 + [0.0] * 40)
    fit = logistic(np.ones((100, 1)), values, np.array([1e6]), alone(100))
    assert fit.beta[0] == pytest.approx(math.log(1.5))
    # the sandwich of a logit of a share: 1/(n p (1 − p)), here times n/(n − 1)
    assert fit.covariance[0, 0] == pytest.approx(100 / 99 / (100 * 0.6 * 0.4))


def test_clusters_that_vote_as_one_count_as_one() -> None:
    """Ten prompts with ten equal votes each are as uncertain as ten votes."""
    few = np.array([1.0, 0, 1, 1, 0, 1, 1, 0, 1, 1])
    many = np.repeat(few, 10)
    prompts = Clusters(["r"] * 100, [str(n // 10) for n in range(100)])
    assert clustered_mean(many, prompts) == pytest.approx(clustered_mean(few, alone(10)))
    wide = clustered_mean(many, Clusters([f"r{n % 2}" for n in range(100)], prompts.prompts))
    assert (
        wide[1] - wide[0]
        > clustered_mean(many, alone(100))[1] - clustered_mean(many, alone(100))[0]
    )


@pytest.mark.parametrize("vote", [0.0, 0.5, 1.0])
def test_votes_that_are_all_alike_do_not_settle_the_mean(vote: float) -> None:
    votes = np.full(40, vote)
    by_prompt = Clusters(["r"] * 40, [f"p{n // 2}" for n in range(40)])
    assert clustered_mean(votes, by_prompt) == pytest.approx(wilson(20 * vote, 20))
    two_raters = Clusters([f"r{n % 2}" for n in range(40)], by_prompt.prompts)
    assert clustered_mean(votes, two_raters) == pytest.approx(wilson(2 * vote, 2))


def test_two_way_clusters_cover_where_naive_ones_do_not() -> None:
    """Eight raters and forty prompts with effects of their own; the truth is one half."""
    random = np.random.default_rng(5)
    covered = naive = 0
    runs = 200
    for _ in range(runs):
        raters, prompts = random.normal(0, 0.6, 8), random.normal(0, 0.8, 40)
        chance = 1 / (1 + np.exp(-(raters[:, None] + prompts[None, :])))
        votes = (random.random((8, 40)) < chance).astype(float).ravel()
        names = [f"r{n // 40}" for n in range(320)], [f"p{n % 40}" for n in range(320)]
        low, high = clustered_mean(votes, Clusters(*names))
        covered += low <= 0.5 <= high
        low, high = clustered_mean(votes, alone(320))
        naive += low <= 0.5 <= high
    assert covered / runs >= 0.9 > 0.75 > naive / runs


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (5, 2.57058), (30, 2.04227), (500, 1.96472)],
)
def test_student_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-5)


def test_wilson_against_a_worked_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857–872, table I: 81 of 263, 0.2553 to 0.3662
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_krippendorff_alpha_gives_the_published_example() -> None:
    """Krippendorff (2011), section C: 4 observers, 12 units, nominal data: 0.743."""
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    columns = zip(*(row.split() for row in rows), strict=True)
    units = [[value for value in column if value != "."] for column in columns]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1.0
    assert krippendorff_alpha([["a", "a"]]) is None and krippendorff_alpha([["a"]]) is None
