"""What a trial shows: one decisive comparison, and everything else described beside it.

The decisive inference is the anytime-valid test of evidence.py on the primary comparison, with the
prompt as unit. Its claim, and those of all other comparisons (Holm-corrected together), are the
only ones made. Intervals of shares and strengths are clustered by rater and prompt (regression.py);
they describe, and are not made for being looked at again and again.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from studio.arena.outcome.agreement import Noise, noise
from studio.arena.outcome.evidence import Evidence, evidence, holm
from studio.arena.outcome.health import Health, health
from studio.arena.outcome.power import Plan, plan
from studio.arena.outcome.raters import Rater, Reach, one_by_one, reach
from studio.arena.outcome.regression import (
    Clusters,
    Strength,
    bradley_terry,
    clustered_mean,
    logistic,
    wilson,
)
from studio.arena.outcome.trimming import Trimming, trimming
from studio.arena.rating.amending import amendment_words
from studio.arena.rating.counted import Ballot, ballots, of_pair, tally
from studio.arena.trials.design import Pair
from studio.arena.trials.ledger import Ledger
from studio.arena.trials.schedule import Kind
from studio.arena.trials.trial import Trial

FEWEST_FOR_FIT = 5


@dataclass(frozen=True, slots=True)
class Comparison:
    """One pair, in all categories or in one.

    `preference`: how much the counted votes prefer `first`, ties ½, with a clustered interval
    `low` … `high`; None without votes. `p_value`: 1 over the largest e-value, Holm-corrected for
    all but the primary comparison. `claim`: "first", "second", or "" while nothing can be claimed;
    it is about the `raters` whose votes were there when the evidence was largest.
    """

    first: str
    second: str
    category: str | None
    votes: int
    wins: int
    losses: int
    ties: int
    both_bad: int
    excluded: int
    preference: float | None
    low: float | None
    high: float | None
    evidence: Evidence
    open_prompts: int
    without_preference: int
    p_value: float
    raters: int
    claim: str


@dataclass(frozen=True, slots=True)
class Share:
    """A count of a total, and Wilson's interval of the share."""

    count: int
    total: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Adjusted:
    """The primary preference under another view: `low` and `high` clustered; None if too few."""

    name: str
    votes: int
    preference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Results:
    """Everything a report shows."""

    trial: str
    project: str
    hash: str
    alpha: float
    plan: Plan
    amendments: tuple[dict[str, Any], ...]
    primary: Comparison
    reach: Reach
    others: tuple[Comparison, ...]
    categories: tuple[Comparison, ...]
    raters: tuple[Rater, ...]
    strengths: tuple[Strength, ...]
    excluded: dict[str, int]
    left_wins: Share
    longer_wins: Share
    adjusted: tuple[Adjusted, ...]
    noise: Noise
    health: tuple[Health, ...]
    trimming: Trimming
    seen_prompts: bool
    unsealed: int

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON takes it; what is not known is null."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        return data


def read_results(trial: Trial) -> Results:
    """The results for somebody who reads them: once there are votes, the trial's prompts are burnt
    for later verdicts of this data folder (ledger.py)."""
    found = results(trial)
    if found.primary.votes:
        Ledger(trial.folder.parent).burn(trial.design, trial.prompts, "results read")
    return found


def results(trial: Trial) -> Results:
    """Count a trial's votes as they are now."""
    every = ballots(trial)
    design = trial.design
    shown = [b for b in every if b.item.kind is Kind.COUNTED]
    primary_votes = of_pair(every, design.primary)
    rest = [(pair, None) for pair in design.comparisons[1:]]
    categories = list(dict.fromkeys(prompt.category for prompt in trial.prompts))
    parts = [(design.primary, category) for category in categories] if len(categories) > 1 else []
    primary = _claimed(compare(trial, every, design.primary), trial)
    secondary = _corrected([compare(trial, every, *which) for which in [*rest, *parts]], trial)
    return Results(
        trial=design.name,
        project=design.project,
        hash=trial.hash,
        alpha=design.alpha,
        plan=plan(design, len(trial.prompts)),
        amendments=tuple({**each, "words": amendment_words(each)} for each in trial.amendments),
        primary=primary,
        reach=reach(trial, every, primary.claim, primary.evidence.mean),
        others=tuple(secondary[: len(rest)]),
        categories=tuple(secondary[len(rest) :]),
        raters=tuple(one_by_one(shown, design.primary)),
        strengths=tuple(_strengths(shown)),
        excluded=dict(Counter(b.excluded for b in shown if b.excluded)),
        left_wins=_share([b.first_is_left == (b.preference == 1) for b in _decided(shown)]),
        longer_wins=_share(
            [(b.longer > 0) == (b.preference == 1) for b in _decided(shown) if b.longer]
        ),
        adjusted=tuple(_views(primary_votes)),
        noise=noise(every),
        health=tuple(health([m.label for m in design.used_models], trial.prompts, trial.answers())),
        trimming=trimming(design.comparisons, trial.prompts, trial.answers().values()),
        seen_prompts=design.seen_prompts,
        unsealed=sum(not prompt.sealed for prompt in trial.prompts),
    )


def compare(
    trial: Trial, every: Sequence[Ballot], pair: Pair, category: str | None = None
) -> Comparison:
    """One pair's votes and evidence; nothing is claimed yet."""
    mine = [b for b in of_pair(every, pair) if category in (None, b.item.category)]
    counted = [b for b in mine if b.counts]
    prompts = tally(every, pair, trial, category)
    preference, low, high = _mean(counted)
    found = evidence(prompts.preferences, trial.design.alpha)
    return Comparison(
        first=pair[0],
        second=pair[1],
        category=category,
        votes=len(mine),
        wins=sum(b.preference == 1 for b in counted),
        losses=sum(b.preference == 0 for b in counted),
        ties=sum(b.preference == 0.5 for b in counted),
        both_bad=sum(b.preference is None and not b.excluded for b in mine),
        excluded=sum(bool(b.excluded) for b in mine),
        preference=preference,
        low=low,
        high=high,
        evidence=found,
        open_prompts=prompts.open,
        without_preference=prompts.without,
        p_value=min(1.0, 1 / found.best),
        raters=prompts.raters[found.best_at - 1] if found.count else 0,
        claim="",
    )


def _claimed(comparison: Comparison, trial: Trial) -> Comparison:
    """With its claim, if the evidence reached 1/alpha and the design lets it stop by now."""
    alpha = trial.design.alpha
    ready = trial.design.stop_early or comparison.open_prompts == 0
    if not (ready and alpha > 0 and comparison.p_value <= alpha):
        return comparison
    # Which way it was settled: later prompts may lean the other way, the claim stands.
    return replace(comparison, claim="first" if comparison.evidence.best_mean > 0.5 else "second")


def _corrected(comparisons: list[Comparison], trial: Trial) -> list[Comparison]:
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return [
        _claimed(replace(comparison, p_value=p), trial)
        for comparison, p in zip(comparisons, adjusted, strict=True)
    ]


def clusters_of(votes: Sequence[Ballot]) -> Clusters:
    """Rater and prompt of each vote."""
    return Clusters([b.vote.judge for b in votes], [b.item.prompt for b in votes])


def _mean(votes: Sequence[Ballot]) -> tuple[float | None, float | None, float | None]:
    if not votes:
        return None, None, None
    values = np.array([b.preference for b in votes], dtype=np.float64)
    if len({b.item.prompt for b in votes}) < 2:
        return float(values.mean()), None, None
    return float(values.mean()), *clustered_mean(values, clusters_of(votes))


def _decided(votes: Sequence[Ballot]) -> list[Ballot]:
    return [b for b in votes if b.counts and b.preference != 0.5]


def _share(hits: Sequence[bool]) -> Share:
    return Share(sum(hits), len(hits), *wilson(sum(hits), len(hits)))


def _strengths(shown: Sequence[Ballot]) -> list[Strength]:
    votes = [b for b in shown if b.counts]
    if len(votes) < FEWEST_FOR_FIT:
        return []
    battles = [(*b.item.pair, float(b.preference or 0.0)) for b in votes]
    return bradley_terry(battles, clusters_of(votes))


def _views(votes: Sequence[Ballot]) -> list[Adjusted]:
    """The primary preference without recognised models, without masked answers, with them, and at
    equal lengths and sides (logistic regression, prior standard deviation 2)."""
    counted = [b for b in votes if b.counts]
    known = [b for b in votes if b.preference is not None]
    views = [
        ("without recognised models", [b for b in counted if not b.vote.recognised]),
        ("without masked answers", [b for b in counted if not b.vote.masked]),
        ("with all excluded votes", known),
    ]
    rows = [Adjusted(name, len(some), *_mean(some)) for name, some in views]
    return [*rows, Adjusted("at equal lengths and sides", len(counted), *_at_equal(counted))]


def _at_equal(votes: Sequence[Ballot]) -> tuple[float | None, float | None, float | None]:
    if len(votes) < FEWEST_FOR_FIT or len({b.item.prompt for b in votes}) < 2:
        return None, None, None
    features = np.array([[1.0, 1.0 if b.first_is_left else -1.0, b.longer] for b in votes])
    values = np.array([b.preference for b in votes], dtype=np.float64)
    fit = logistic(features, values, np.full(3, 2.0), clusters_of(votes))
    middle, low, high = (
        float(1 / (1 + np.exp(-end))) for end in fit.interval(np.array([1.0, 0.0, 0.0]))
    )
    return middle, low, high
