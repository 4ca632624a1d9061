"""The Karcher mean: the direction with the least squared angles to those of all inputs.

Directions u_i = x_i / |x_i| weigh the same. From their normalized sum the mean m goes, up to
`max_iter` times, along the mean of the tangents towards them,

    v = mean of angle_i / sin(angle_i) · (u_i - cos(angle_i) · m)
    m ← cos|v| · m + sin|v| · v / |v|

until |v| < `tol`. The result is m times the mean norm of the inputs. By mergekit's rules inputs of
a norm up to `tol` give no direction but count for the mean norm, and where the sum of directions
vanishes m begins at the first. Towards an antipode every way is as short, so it gives no tangent.
"""

from collections.abc import Mapping

import numpy as np

from studio.errors import StudioError
from studio.merge.gradient import Floats
from studio.merge.methods.method import Method, Setting

MOST_ITERATIONS = 1000


def coefficients(gram: Floats, values: Mapping[str, Floats]) -> Floats:
    """Of all inputs, (T, k). Everything happens in the span of the directions: m = Σ c_i u_i."""
    rounds, tol = values["max_iter"], values["tol"]
    _check(rounds, tol)
    norms = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0.0))
    if norms.shape[1] == 1:
        return np.ones_like(norms)
    counts = norms > tol[:, None]
    lengths = np.where(counts, norms, 1.0)
    inner = gram / (lengths[:, :, None] * lengths[:, None, :])
    weight = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    mean = _start(inner, weight, tol)
    moves = np.ones(len(gram), dtype=bool)
    for step in range(int(rounds.max(initial=0))):
        tangent = _tangent(inner, weight, mean, tol)
        length = _norm(inner, tangent)
        moves = moves & (length >= tol) & (step < rounds)
        if not moves.any():
            break
        along = np.divide(np.sin(length), length, out=np.zeros_like(length), where=length > 0)
        moved = np.cos(length)[:, None] * mean + along[:, None] * tangent
        mean = np.where(moves[:, None], _unit(inner, moved, tol), mean)
    found: Floats = norms.mean(axis=1)[:, None] * mean / lengths * counts
    return found


def _check(rounds: Floats, tol: Floats) -> None:
    if np.any((rounds < 0) | (rounds > MOST_ITERATIONS) | (rounds != np.floor(rounds))):
        raise StudioError(f"karcher: max_iter must be a whole number from 0 to {MOST_ITERATIONS}")
    if np.any(tol <= 0):
        raise StudioError("karcher: tol must be above 0; mergekit's own is 1e-5")


def _start(inner: Floats, weight: Floats, tol: Floats) -> Floats:
    """The normalized sum of the directions, or the first one where they cancel out."""
    first = np.zeros_like(weight)
    first[np.arange(len(weight)), np.argmax(weight > 0, axis=1)] = 1.0
    vanishes = _norm(inner, weight) < tol
    return np.where(vanishes[:, None], first, _unit(inner, weight, tol))


def _tangent(inner: Floats, weight: Floats, mean: Floats, tol: Floats) -> Floats:
    """The mean of the tangents at `mean` towards all directions."""
    cosines = np.clip(np.einsum("tij,tj->ti", inner, mean), -1.0, 1.0)
    angle = np.arccos(cosines)
    is_clear = (angle >= tol[:, None]) & (np.pi - angle >= tol[:, None])
    share = weight * np.where(is_clear, angle / np.where(is_clear, np.sin(angle), 1.0), 0.0)
    tangent: Floats = share - (share * cosines).sum(axis=1)[:, None] * mean
    return tangent


def _norm(inner: Floats, vectors: Floats) -> Floats:
    found: Floats = np.sqrt(np.maximum(np.einsum("ti,tij,tj->t", vectors, inner, vectors), 0.0))
    return found


def _unit(inner: Floats, vectors: Floats, tol: Floats) -> Floats:
    norm = _norm(inner, vectors)
    found: Floats = vectors / np.where(norm > tol, norm, 1.0)[:, None]
    return found


KARCHER = Method(
    name="karcher",
    coefficients=coefficients,
    settings={
        "max_iter": Setting(per_input=False, default=10.0, is_fixed=True),
        "tol": Setting(per_input=False, default=1e-5, is_fixed=True),
    },
)
