"""Logistic regression with a prior, and errors clustered by rater and by prompt.

For votes y_i in {0, ½, 1} with features x_i the estimate β maximises

    Σ_i [ y_i ln σ(x_iβ) + (1 − y_i) ln(1 − σ(x_iβ)) ] − Σ_k β_k²/(2s_k²),   σ(z) = 1/(1 + e^(−z))

Votes by one rater, and votes on one prompt, are alike; so its covariance is H⁻¹ M H⁻¹ with
M = M_rater + M_prompt − M_both, where M_g sums the outer products of the scores added up within
each cluster of g, times G/(G − 1) for G clusters. With one rater only M is M_prompt; where the
difference is not positive definite it is the larger of M_rater and M_prompt, by their traces.

Bradley-Terry is this with x_i = e_first − e_second: P(first wins) = σ(β_first − β_second). A prior
is needed: without it 5 wins of 5 give an infinite difference.

Sources: Cameron, Gelbach and Miller, Robust inference with multiway clustering, Journal of Business
& Economic Statistics 29 (2011) 238–249; Bradley and Terry, Biometrika 39 (1952) 324–345.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.arena.outcome.evidence import Array

PRIOR_SD = 1.0
MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class Fit:
    """Estimate (k,), covariance (k, k), and the degrees of freedom of its intervals."""

    beta: Array
    covariance: Array
    freedom: int

    def interval(self, weights: Array) -> tuple[float, float, float]:
        """Estimate, low and high end (95 %) of the combination `weights` · β."""
        middle = float(weights @ self.beta)
        error = math.sqrt(max(float(weights @ self.covariance @ weights), 0.0))
        reach = student_quantile(0.975, self.freedom) * error
        return middle, middle - reach, middle + reach


@dataclass(frozen=True, slots=True)
class Clusters:
    """For each vote its rater and its prompt."""

    raters: Sequence[str]
    prompts: Sequence[str]

    def freedom(self) -> int:
        """One less than the number of clusters on the side that has fewer, but more than one."""
        sizes = [size for size in (len(set(self.raters)), len(set(self.prompts))) if size > 1]
        return max(min(sizes, default=2) - 1, 1)


def logistic(features: Array, votes: Array, prior_sd: Array, clusters: Clusters) -> Fit:
    """Fit; `features` (n, k), `votes` (n,), `prior_sd` (k,)."""
    precision = np.diag(1 / prior_sd**2)
    beta = np.zeros(features.shape[1])
    for _ in range(MAX_STEPS):
        chance = 1 / (1 + np.exp(-features @ beta))
        slope = features.T @ (votes - chance) - precision @ beta
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features + precision
        step = np.linalg.solve(hessian, slope)
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    chance = 1 / (1 + np.exp(-features @ beta))
    bread = np.linalg.inv((features * (chance * (1 - chance))[:, None]).T @ features + precision)
    meat = clustered_meat(features * (votes - chance)[:, None], clusters)
    return Fit(beta, bread @ meat @ bread, clusters.freedom())


def clustered_mean(values: Array, clusters: Clusters) -> tuple[float, float]:
    """The ends of a two-way clustered 95 % interval of the mean, within 0 and 1.

    Values that are all alike do not tell how others would vary: then it is Wilson's of as many
    values as there are clusters on the side that has fewer.
    """
    middle = float(values.mean())
    if np.ptp(values) == 0:
        independent = clusters.freedom() + 1
        return wilson(middle * independent, independent)
    variance = float(clustered_meat((values - middle)[:, None], clusters)[0, 0]) / len(values) ** 2
    reach = student_quantile(0.975, clusters.freedom()) * math.sqrt(variance)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def clustered_meat(scores: Array, clusters: Clusters) -> Array:
    """M of the module's formula for scores (n, k)."""
    by_prompt = _meat(scores, clusters.prompts)
    if len(set(clusters.raters)) < 2:
        return by_prompt
    by_rater = _meat(scores, clusters.raters)
    both = _meat(
        scores, [f"{r}\x1f{p}" for r, p in zip(clusters.raters, clusters.prompts, strict=True)]
    )
    meat = by_rater + by_prompt - both
    if np.linalg.eigvalsh(meat).min() > 0:
        return meat
    return by_rater if np.trace(by_rater) > np.trace(by_prompt) else by_prompt


def _meat(scores: Array, groups: Sequence[str]) -> Array:
    names, which = np.unique(np.array(groups), return_inverse=True)
    sums = np.zeros((len(names), scores.shape[1]))
    np.add.at(sums, which, scores)
    count = len(names)
    return np.asarray(sums.T @ sums * (count / max(count - 1, 1)))


@dataclass(frozen=True, slots=True)
class Strength:
    """A model's Bradley-Terry strength on Elo's scale, 0 being the mean of the models."""

    model: str
    elo: float
    low: float
    high: float


def bradley_terry(
    battles: Sequence[tuple[str, str, float]], clusters: Clusters, prior_sd: float = PRIOR_SD
) -> list[Strength]:
    """Strengths from (first, second, preference of the first), strongest first."""
    models = sorted({model for first, second, _ in battles for model in (first, second)})
    place = {model: column for column, model in enumerate(models)}
    features = np.zeros((len(battles), len(models)))
    for row, (first, second, _) in enumerate(battles):
        features[row, place[first]], features[row, place[second]] = 1.0, -1.0
    votes = np.array([preference for _, _, preference in battles])
    fit = logistic(features, votes, np.full(len(models), prior_sd), clusters)
    scale = 400 / math.log(10)
    strengths = []
    for model in models:
        weights = np.full(len(models), -1 / len(models))
        weights[place[model]] += 1
        elo, low, high = (scale * end for end in fit.interval(weights))
        strengths.append(Strength(model, elo, low, high))
    return sorted(strengths, key=lambda strength: -strength.elo)


def student_quantile(chance: float, freedom: int) -> float:
    """The quantile of Student's t for a chance of ½ or more: by halving, the distribution by
    Gauss-Legendre quadrature of cos^(freedom − 1) after t = √freedom · tan φ."""
    points, weights = np.polynomial.legendre.leggauss(64)
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(
        math.pi
    )
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        area = middle / 2 * float(weights @ np.cos(middle * (points + 1) / 2) ** (freedom - 1))
        low, high = (middle, high) if 0.5 + constant * area < chance else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def wilson(count: float, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson, Journal of the American Statistical Association 22
    (1927) 209–212); 0 to 1 if nothing is known."""
    if total == 0:
        return 0.0, 1.0
    share, z = count / total, 1.959964
    middle = share + z * z / (2 * total)
    reach = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max((middle - reach) / scale, 0.0), min((middle + reach) / scale, 1.0)
