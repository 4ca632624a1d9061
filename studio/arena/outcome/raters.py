"""The raters one by one, and whether a claim about them holds for raters like them.

The decisive test takes the raters as they are (evidence.py). The same test with the rater as the
unit takes the prompts as they are: x_i is the mean of a rater's votes in the primary comparison,
known once the rater has judged all their prompts; raters who have not are left out, however many
votes they gave. Raters who are like them are drawn from the same population, and who is done next
is no matter of taste. So if that population prefers neither model on these prompts, the mean of
E[x_i | raters before] is ½, in whatever order votes come in, and the evidence ever reaches 1/α with
probability at most α.

A claim about raters like these is made only beside the decisive one, of which it is the scope, and
only about these prompts: that raters and prompts are both drawn, neither test allows for.

Sources: Waudby-Smith and Ramdas as in evidence.py; that raters and prompts each need a test of
their own: Clark, The language-as-fixed-effect fallacy, Journal of Verbal Learning and Verbal
Behavior 12 (1973) 335–359.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.arena.outcome.evidence import Evidence, evidence, log_e_values
from studio.arena.rating.counted import Ballot, of_pair
from studio.arena.trials.design import Pair
from studio.arena.trials.schedule import Kind
from studio.arena.trials.trial import Trial

MOST_RATERS = 1000


@dataclass(frozen=True, slots=True)
class Rater:
    """One rater: counted votes, preference for the merged model in the primary comparison, how
    often the left answer won where one won, seconds per vote (median), recognised models."""

    name: str
    votes: int
    preference: float | None
    left_share: float | None
    seconds: float
    recognised: int


@dataclass(frozen=True, slots=True)
class Reach:
    """What the raters who have judged all their prompts show of raters like them.

    `fewest`: how many raters of their mean preference could show it at all (of that of all votes,
    while no rater is done); None if more than MOST_RATERS, or if that mean is not on the claim's
    side. `holds`: whether it is claimed.
    """

    evidence: Evidence
    fewest: int | None
    holds: bool


def one_by_one(shown: Sequence[Ballot], primary: Pair) -> list[Rater]:
    """The raters in the order of their first votes."""
    rows = []
    for name in dict.fromkeys(b.vote.judge for b in shown):
        mine = [b for b in shown if b.vote.judge == name]
        values = [b.preference for b in mine if b.counts and b.item.pair == primary]
        known = [value for value in values if value is not None]
        left = [
            b.first_is_left == (b.preference == 1) for b in mine if b.counts and b.preference != 0.5
        ]
        rows.append(
            Rater(
                name=name,
                votes=sum(b.counts for b in mine),
                preference=statistics.fmean(known) if known else None,
                left_share=statistics.fmean(left) if left else None,
                seconds=statistics.median(b.vote.seconds for b in mine),
                recognised=sum(b.vote.recognised for b in mine),
            )
        )
    return rows


def reach(trial: Trial, every: Sequence[Ballot], claim: str, mean: float) -> Reach:
    """How far the primary comparison's `claim` ("first", "second" or "") reaches, at whose prompts
    the `mean` preference was found."""
    alpha = trial.design.alpha
    found = evidence(rater_means(trial, every), alpha)
    mean = found.mean if found.count else mean
    side = mean if claim == "first" else 1 - mean
    settled = found.reached_at is not None and (found.best_mean > 0.5) == (claim == "first")
    return Reach(found, fewest_raters(side, alpha), bool(claim) and settled)


def rater_means(trial: Trial, every: Sequence[Ballot]) -> list[float]:
    """The mean preference of each rater who is done, in the order in which they were; of a rater
    of whom no vote counts there is none."""
    pair = trial.design.primary
    planned = [
        sum(item.pair == pair and item.kind is Kind.COUNTED for item in slot)
        for slot in trial.schedule
    ]
    given: Counter[tuple[str, int]] = Counter()
    values: dict[tuple[str, int], list[float]] = {}
    means = []
    for ballot in of_pair(every, pair):
        who = ballot.vote.judge, ballot.item.slot
        given[who] += 1
        if ballot.counts and ballot.preference is not None:
            values.setdefault(who, []).append(ballot.preference)
        if given[who] == planned[ballot.item.slot] and who in values:
            means.append(statistics.fmean(values[who]))
    return means


def fewest_raters(preference: float, alpha: float) -> int | None:
    """How many raters of this mean preference could reach 1/alpha; the more they differ, the more
    it takes. None if more than MOST_RATERS, or if the preference is not above ½."""
    if not (preference > 0.5 and alpha > 0):
        return None
    reached = log_e_values(np.full(MOST_RATERS, preference)) >= -np.log(alpha)
    return int(reached.argmax()) + 1 if reached.any() else None
