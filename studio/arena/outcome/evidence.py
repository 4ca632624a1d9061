"""Evidence that may be looked at as often as one likes.

The unit is a prompt (in raters.py a rater): x_i, from 0 to 1, is how much its votes preferred the
first model (a tie is ½). The hypothesis "the mean preference is m" is tested by betting against it:
for a fixed θ the wealth

    Π_i [ x_i · θ/m + (1 − x_i) · (1 − θ)/(1 − m) ]

is expected to stay at 1 if E[x_i | past] = m, whatever else the x_i do. So is its average over
θ ~ Beta(2, 2), the e-value E_n(m). By Ville's inequality it ever reaches 1/α with probability at
most α: E_n(½) ≥ 1/α at any time, however often one looks and whenever one stops, refutes "no
preference" at level α, and {m: E_n(m) < 1/α} is a confidence interval that holds at all times.
After w prompts wholly for and l wholly against the first model, E(½) = 2^(w+l) B(2+w, 2+l)/B(2, 2);
ties change nothing.

Raters differ, and may come one after the other: μ_i = E[x_i | past] need not stay at m. Divided by
Π_i E[factor_i | past] the wealth is a martingale all the same, and as the logarithm of these
factors is concave in μ_i, their product is at most 1 wherever the mean of the μ_i so far is m. So
what E_n(½) ≥ 1/α refutes is: the raters whose votes there were by then, each weighing as much as
their votes, prefer neither model. It says nothing of other raters, or of those who come later.

Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, Journal
of the Royal Statistical Society B 86 (2024) 1–27. Each factor is its 1 + λ(x_i − m) with the bet
λ = (θ − m)/(m(1 − m)).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NODES = 256
GRID = 201


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the prompts show.

    `count` prompts with mean preference `mean` (NaN without any). `e_value`: now; `best`: the
    largest so far, after `best_at` prompts, when the mean was `best_mean`; `reached_at`: how many
    prompts it took to reach 1/alpha, None if it did not. `low`, `high`: the anytime-valid interval
    of the mean at 1 − alpha (0 to 1 if alpha is 0).
    """

    count: int
    mean: float
    e_value: float
    best: float
    best_at: int
    best_mean: float
    reached_at: int | None
    low: float
    high: float


@functools.cache
def _bets(nodes: int = NODES) -> tuple[Array, Array]:
    """Values of θ and the logarithms of their weights: Gauss-Legendre times the Beta density."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    theta = (points + 1) / 2
    return theta, np.log(weights / 2 * 6 * theta * (1 - theta))


def log_e_values(values: Array, nodes: int = NODES) -> Array:
    """ln E_n(½) after each prompt along the last axis of `values` (…, n)."""
    theta, log_weights = _bets(nodes)
    different, which = np.unique(values, return_inverse=True)
    x = different[:, None]
    gains = np.log(2 * x * theta + 2 * (1 - x) * (1 - theta))[which.reshape(np.shape(values))]
    return _log_mean(np.cumsum(gains, axis=-2), log_weights)


def _log_mean(log_wealth: Array, log_weights: Array) -> Array:
    summed = log_wealth + log_weights
    top = summed.max(axis=-1, keepdims=True)
    logs: Array = top[..., 0] + np.log(np.exp(summed - top).sum(axis=-1))
    return logs


def evidence(values: Sequence[float], alpha: float) -> Evidence:
    """The evidence of the prompts' preferences, in the order in which they were complete."""
    if not values:
        return Evidence(0, float("nan"), 1.0, 1.0, 0, float("nan"), None, 0.0, 1.0)
    x = np.array(values, dtype=np.float64)
    logs = log_e_values(x)
    best_at = int(logs.argmax()) + 1
    reached = np.flatnonzero(logs >= -np.log(alpha)) if alpha > 0 else np.array([])
    low, high = interval(x, alpha) if alpha > 0 else (0.0, 1.0)
    return Evidence(
        count=len(x),
        mean=float(x.mean()),
        e_value=_exp(logs[-1]),
        best=_exp(logs.max()),
        best_at=best_at,
        best_mean=float(x[:best_at].mean()),
        reached_at=int(reached[0]) + 1 if reached.size else None,
        low=low,
        high=high,
    )


def _exp(log: float) -> float:
    """exp, at most 1e300: JSON has no infinity."""
    return float(np.exp(min(float(log), 690.0)))


def interval(values: Array, alpha: float) -> tuple[float, float]:
    """The means that the bets have not refuted, as the smallest interval that holds them all."""
    x = np.asarray(values, dtype=np.float64)
    theta, log_weights = _bets()
    bound = -np.log(alpha)

    def stands(mean: float) -> bool:
        gains = np.log(np.outer(x, theta / mean) + np.outer(1 - x, (1 - theta) / (1 - mean))).sum(
            axis=0
        )
        return bool(_log_mean(gains, log_weights) < bound)

    grid = np.linspace(0, 1, GRID)[1:-1]
    standing = [mean for mean in grid if stands(float(mean))]
    if not standing:  # between two points of the grid: the mean of the data is never refuted
        return float(x.mean()), float(x.mean())
    step = 1 / (GRID - 1)
    low, high = float(standing[0]), float(standing[-1])
    return (
        0.0 if low < 1.5 * step and stands(step / 64) else _edge(stands, low - step, low),
        1.0
        if high > 1 - 1.5 * step and stands(1 - step / 64)
        else _edge(stands, high + step, high),
    )


def _edge(stands: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where the interval ends between two neighbours of the grid."""
    for _ in range(12):
        middle = (outside + inside) / 2
        if 0 < middle < 1 and stands(middle):
            inside = middle
        else:
            outside = middle
    return inside


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: those below alpha may all be claimed together at level alpha.

    The largest e-value of all times gives the p-value 1/e. Source: Holm, A simple sequentially
    rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979) 65–70.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = worst
    return adjusted
