"""How likely a trial is to find what is there: told before it begins.

With one vote a prompt the chance is computed exactly: ties do not move the evidence, so what counts
is the number d of the others, and C(d), the chance that the evidence has reached 1/alpha by then,
follows from stepping through all counts of wins. With n prompts d is binomial. With several votes
a prompt it is simulated (seeded), and prompts are taken to differ: the preference of each is drawn
from a Beta distribution with standard deviation SPREAD around the mean.
"""

import math
from dataclasses import dataclass

import numpy as np

from studio.arena.outcome.evidence import Array, log_e_values
from studio.arena.trials.design import Design

SPREAD = 0.15
RUNS = 500
ENOUGH = 0.8
MOST_PROMPTS = 2000
MOST_SIMULATED = 300


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trial can be expected to find.

    `power`: the chance to find a preference of `preference` (among votes that are no ties) with
    `votes` votes on `prompts` prompts. `needed`: how many prompts would find it in 8 trials of 10;
    None if more than `most`.
    """

    prompts: int
    votes: int
    preference: float
    ties: float
    alpha: float
    power: float
    needed: int | None
    most: int

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


def percent(share: float) -> str:
    """A share in words: "65 %"."""
    return f"{100 * share:.0f} %"


def odds(chance: float) -> str:
    """A chance in words: "about one trial of four"."""
    if chance < 0.03:
        return "hardly any trial"
    if chance > 0.97:
        return "nearly every trial"
    words = "one two three four five six seven eight nine ten".split()
    fractions = [(count, of) for of in range(2, 11) for count in range(1, of)]
    close = [(count, of) for count, of in fractions if abs(count / of - chance) <= 0.025]
    count, of = min(close, key=lambda f: f[1]) if close else ((1, 10) if chance < 0.5 else (9, 10))
    return f"about {words[count - 1]} {'trial' if count == 1 else 'trials'} of {words[of - 1]}"


def plan(design: Design, prompts: int) -> Plan:
    """What the design can find with so many prompts."""
    curve = (
        power_curve(design.expect, design.expect_ties, design.alpha, design.votes_per_prompt)
        if design.alpha > 0
        else np.zeros(prompts + 1)
    )
    return Plan(
        prompts=prompts,
        votes=prompts * design.votes_per_prompt,
        preference=design.expect,
        ties=design.expect_ties,
        alpha=design.alpha,
        power=float(curve[min(prompts, len(curve) - 1)]),
        needed=needed_prompts(curve),
        most=len(curve) - 1,
    )


def needed_prompts(curve: Array) -> int | None:
    """How many prompts find it in eight trials of ten; None if more than the curve reaches."""
    enough = np.flatnonzero(curve >= ENOUGH)
    return int(enough[0]) if enough.size else None


def power_curve(
    preference: float, ties: float, alpha: float, votes: int = 1, most: int = MOST_PROMPTS
) -> Array:
    """For 0 … `most` prompts the chance that the evidence has reached 1/alpha by then."""
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
    """The same with several votes a prompt, from RUNS simulated trials."""
    random = np.random.default_rng(20240601)
    weight = max(preference * (1 - preference) / SPREAD**2 - 1, 1.0)
    reached = np.zeros(most + 1)
    chunk = 50
    for _ in range(RUNS // chunk):
        chances = random.beta(preference * weight, (1 - preference) * weight, (chunk, most, 1))
        wins = (random.random((chunk, most, votes)) < chances).astype(float)
        wins[random.random(wins.shape) < ties] = 0.5
        crossed = log_e_values(wins.mean(axis=-1), nodes=64) >= -math.log(alpha)
        first = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, most + 1)
        reached += np.bincount(first, minlength=most + 2)[: most + 1]
    return np.asarray(np.cumsum(reached) / RUNS)
