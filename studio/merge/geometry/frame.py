"""Vectors, norms and angles in the space that a preview tells of: weights, or task vectors.

A mix Σ w_i x_i is written in the basis o, x_1 - o, …, x_n - o, where the origin o is the base
model, or without one the first source. What nearly parallel models differ by, 1e-4 of their norm
and less, keeps its digits there.
"""

from functools import cached_property

import numpy as np

from studio.merge.gradient import Floats


class Frame:
    """The geometry of T tensors of n sources, from their Gram matrices.

    `gram`: (T, m, m) over the sources and, behind them, the base if it is no source; `base`: its
    index, or None for the space of the weights. In the space of task vectors the vector of a mix
    goes from the base to it.
    """

    def __init__(self, gram: Floats, count: int, base: int | None) -> None:
        self.base, self.gram_of_all = base, gram
        self._count = count
        origin = base or 0
        basis = np.eye(gram.shape[1])
        basis = np.concatenate([basis[[origin]], basis[:count] - basis[origin]])
        self._inner = basis @ gram @ basis.T
        self._shift = 0.0 if base is None else 1.0
        self._sources = self._vectors(np.eye(count))

    @cached_property
    def gram(self) -> Floats:
        """Of the sources' vectors, (T, n, n)."""
        return self._sources @ self._inner @ self._sources.T

    @cached_property
    def norms(self) -> Floats:
        """Of the sources' vectors, (T, n)."""
        return _root(np.diagonal(self.gram, axis1=1, axis2=2))

    @cached_property
    def source_cosines(self) -> Floats:
        """Between the sources' vectors, (T, n, n); NaN where one of them is zero."""
        return _cosine(self.gram, self.norms[:, :, None] * self.norms[:, None, :])

    def norm(self, weights: Floats) -> Floats:
        """Of the vector of each mix, (T,); `weights`: (T, n)."""
        return self._norm(self._vectors(weights))

    def inner(self, weights: Floats) -> Floats:
        """The inner product of each mix's vector with each source's, (T, n)."""
        return self._times(self._vectors(weights)) @ self._sources.T

    def cosine(self, first: Floats, second: Floats) -> Floats:
        """Between two mixes, (T,); NaN where one of them is zero."""
        inner = self._times(self._vectors(first)) * self._vectors(second)
        return _cosine(inner.sum(axis=1), self.norm(first) * self.norm(second))

    def between(self, first: Floats, second: Floats) -> Floats:
        """The distance between two mixes, (T,)."""
        return self._norm(_step(first - second))

    def distances(self, weights: Floats) -> Floats:
        """From each mix to each source, (T, n)."""
        steps = weights[:, None, :] - np.eye(self._count)
        vectors = _step(steps)
        return _root((vectors @ self._inner * vectors).sum(axis=2))

    def farthest(self) -> float:
        """The distance between the two sources that are farthest apart, all tensors together."""
        square = np.diagonal(self.gram, axis1=1, axis2=2).sum(axis=0)
        total = square[:, None] + square[None, :] - 2 * self.gram.sum(axis=0)
        return float(np.sqrt(max(total.max(), 0.0)))

    def shares(self, weights: Floats) -> Floats:
        """Each source's part of a mix, (T, n), 1 in sum: w_i / Σw.

        Of task vectors the weight counts with the vector's length: w_i |x_i - b|.
        """
        parts = weights if self.base is None else weights * self.norms
        return ratio(parts, parts.sum(axis=1, keepdims=True))

    def _vectors(self, weights: Floats) -> Floats:
        """In the frame's basis: (…, n) weights to (…, n + 1)."""
        total = weights.sum(axis=-1, keepdims=True) - self._shift
        return np.concatenate([total, weights], axis=-1)

    def _norm(self, vectors: Floats) -> Floats:
        return _root((self._times(vectors) * vectors).sum(axis=1))

    def _times(self, vectors: Floats) -> Floats:
        """The Gram matrix of the basis times each vector, (T, n + 1)."""
        found: Floats = np.einsum("tij,ti->tj", self._inner, vectors)
        return found


def _step(steps: Floats) -> Floats:
    """The difference between two mixes in the frame's basis, from that of their weights, (…, n)."""
    return np.concatenate([steps.sum(axis=-1, keepdims=True), steps], axis=-1)


def ratio(above: Floats, below: Floats) -> Floats:
    """above / below, 0 where a zero tensor makes both vanish."""
    below = np.broadcast_to(below, above.shape)
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def ratio_or_nan(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where there is nothing to divide by."""
    below = np.broadcast_to(below, above.shape)
    found: Floats = np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)
    return found


def degrees(cosine: Floats) -> Floats:
    """The angle in degrees."""
    angle: Floats = np.degrees(np.arccos(cosine))
    return angle


def _cosine(inner: Floats, norms: Floats) -> Floats:
    cosine: Floats = np.clip(ratio_or_nan(inner, norms), -1.0, 1.0)
    return cosine


def _root(square: Floats) -> Floats:
    root: Floats = np.sqrt(np.maximum(square, 0.0))
    return root
