"""How likely a trial is to find what is there: told before it begins.

With one vote a prompt the chance is computed exactly: ties do not move the evidence, so what counts
is the number d of the others, and C(d), the chance that the evidence has reached 1/alpha by then,
follows from stepping through all counts of wins. With n prompts d is binomial. With several votes
a prompt it is simulated (seeded), and prompts are taken to differ: the preference of each is drawn
from a Beta distribution with standard deviation SPREAD around the mean. Likewise for a claim about
raters like those at hand, where the unit is a rater with all their votes (raters.py).
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from studio.arena.outcome.evidence import Array, log_e_values
from studio.arena.trials.design import Design

SPREAD = 0.15
RUNS = 2000
ENOUGH, HARDLY = 0.8, 0.03
MOST_PROMPTS = 2000
MOST_SIMULATED = 300


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trial can be expected to find.

    `power`: the chance to find a preference of `preference` (among votes that are no ties, of the
    raters together) with `votes` votes on `prompts` prompts. `needed`: how many prompts would find
    it in 8 trials of 10; None if more than `most`. `reach`: the chance that `raters` raters, who
    share the votes, show it of raters like them; `raters_needed`: how many with so many votes each
    would in 8 trials of 10; None if more than MOST_SIMULATED.
    """

    prompts: int
    votes: int
    raters: int
    preference: float
    ties: float
    alpha: float
    power: float
    needed: int | None
    most: int
    reach: float
    raters_needed: int | None

    def sentence(self) -> str:
        """The plan in words."""
        if self.alpha == 0:
            return f"{self.votes} votes on {self.prompts} prompts to explore; nothing is claimed"
        needed = f"{self.needed:,}" if self.needed else f"more than {self.most:,}"
        return (
            f"{self.votes} votes on {self.prompts} prompts at {percent(self.ties)} ties find a "
            f"true {percent(self.preference)} preference in {odds(self.power)} "
            f"({percent(self.power)}); {needed} prompts would find it in eight trials of ten"
        )

    def scope(self) -> str:
        """For whom a claim would hold, in words."""
        if self.alpha == 0:
            return ""
        whose = "this one rater" if self.raters == 1 else f"these {self.raters} raters together"
        about = (
            f"A claim will be about {whose}, on prompts like these; the "
            f"{percent(self.preference)} are theirs"
        )
        needed = f"{self.raters_needed or f'more than {MOST_SIMULATED}'} raters"
        differ = f"if raters differ by {100 * SPREAD:.0f} points"
        pairs = "one pair" if self.each == 1 else f"{self.each} pairs"
        if self.reach < HARDLY:
            return (
                f"{about}. To speak of raters like them too, {needed} who rate {pairs} each would "
                f"be needed ({differ})"
            )
        return (
            f"{about}. It will reach raters like them, on these prompts, in {odds(self.reach)} "
            f"({percent(self.reach)}, {differ}); {needed} find that in eight trials of ten"
        )

    @property
    def each(self) -> int:
        """Votes of one rater, at least."""
        return max(self.votes // self.raters, 1)


def percent(share: float) -> str:
    """A share in words: "65 %"; halves go up, as on the page."""
    return f"{math.floor(100 * share + 0.5)} %"


def odds(chance: float) -> str:
    """A chance in words: "about one trial of four"."""
    if chance < HARDLY:
        return "hardly any trial"
    if chance > 1 - HARDLY:
        return "nearly every trial"
    words = "one two three four five six seven eight nine ten".split()
    fractions = [(count, of) for of in range(2, 11) for count in range(1, of)]
    close = [(count, of) for count, of in fractions if abs(count / of - chance) <= 0.025]
    count, of = min(close, key=lambda f: f[1]) if close else ((1, 10) if chance < 0.5 else (9, 10))
    return f"about {words[count - 1]} {'trial' if count == 1 else 'trials'} of {words[of - 1]}"


def plan(design: Design, prompts: int) -> Plan:
    """What the design can find with so many prompts."""
    votes = prompts * design.votes_per_prompt

    def curve_of(votes_of_one: int) -> Array:
        if design.alpha == 0:
            return np.zeros(prompts + 1)
        return power_curve(design.expect, design.expect_ties, design.alpha, votes_of_one)

    curve = curve_of(design.votes_per_prompt)
    by_rater = curve_of(max(votes // design.raters, 1))
    power = float(curve[min(prompts, len(curve) - 1)])
    return Plan(
        prompts=prompts,
        votes=votes,
        raters=design.raters,
        preference=design.expect,
        ties=design.expect_ties,
        alpha=design.alpha,
        power=power,
        needed=needed_units(curve),
        most=len(curve) - 1,
        reach=min(power, float(by_rater[min(design.raters, len(by_rater) - 1)])),
        raters_needed=needed_units(by_rater),
    )


def needed_units(curve: Array) -> int | None:
    """How many prompts or raters find it in eight trials of ten; None if the curve has too few."""
    enough = np.flatnonzero(curve >= ENOUGH)
    return int(enough[0]) if enough.size else None


@functools.cache
def power_curve(
    preference: float, ties: float, alpha: float, votes: int = 1, most: int = MOST_PROMPTS
) -> Array:
    """For 0 … `most` prompts (or raters) of so many votes each the chance that the evidence has
    reached 1/alpha by then."""
    if votes > 1:
        return _simulated(preference, ties, alpha, votes, min(most, MOST_SIMULATED))
    reached = _reached_by(preference, alpha, most)
    curve = np.zeros(most + 1)
    counts = np.arange(most + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
    for n in range(1, most + 1):
        d = counts[: n + 1]
        logs = log_factorials[n] - log_factorials[d] - log_factorials[n - d]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = logs + np.where(d > 0, d * np.log(1 - ties), 0.0)
            logs = logs + np.where(n - d > 0, (n - d) * np.log(ties), 0.0)
        curve[n] = np.exp(logs) @ reached[: n + 1]
    return curve


def _reached_by(preference: float, alpha: float, most: int) -> Array:
    """C(d) for d = 0 … most: the chance to have reached 1/alpha by the d-th vote that is no tie."""
    log_beta = [math.lgamma(2 + k) for k in range(most + 1)]
    gammas = np.array(log_beta)
    alive = np.array([1.0])
    reached = np.zeros(most + 1)
    for d in range(1, most + 1):
        alive = np.append(alive * (1 - preference), 0.0) + np.append(0.0, alive * preference)
        wins = np.arange(d + 1)
        logs = d * math.log(2) + gammas[wins] + gammas[d - wins] - math.lgamma(4 + d) + math.log(6)
        crossed = logs >= -math.log(alpha)
        reached[d] = reached[d - 1] + alive[crossed].sum()
        alive[crossed] = 0.0
    return reached


def _simulated(preference: float, ties: float, alpha: float, votes: int, most: int) -> Array:
    """The same with several votes a unit, from RUNS simulated trials."""
    random = np.random.default_rng(20240601)
    weight = max(preference * (1 - preference) / SPREAD**2 - 1, 1.0)
    reached = np.zeros(most + 1)
    chunk = 50
    for _ in range(RUNS // chunk):
        chances = random.beta(preference * weight, (1 - preference) * weight, (chunk, most))
        decided = random.binomial(votes, 1 - ties, (chunk, most))
        means = (random.binomial(decided, chances) + (votes - decided) / 2) / votes
        crossed = log_e_values(means, nodes=32) >= -math.log(alpha)
        first = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, most + 1)
        reached += np.bincount(first, minlength=most + 2)[: most + 1]
    return np.asarray(np.cumsum(reached) / RUNS)
