"""What a recipe does to each tensor, from Gram matrices alone: no weights are read here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.merge.coefficients import StageMix, settings_of, solve
from studio.merge.gradient import Floats
from studio.merge.layout import Layout
from studio.merge.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Preview:
    """The geometry of a merge for T tensors of n sources.

    `stages`: every stage, the result last. `shares`: (T, n), each source's part w_i / Σw of the
    result. `similarity`: (T, n), the cosine between result and source. `norm_ratio`: (T,), the
    result's norm over the mean norm of the sources. `sizes`: (T,), elements of each tensor.
    """

    layout: Layout
    sources: tuple[str, ...]
    stages: Sequence[StageMix]
    shares: Floats
    similarity: Floats
    norm_ratio: Floats
    sizes: Floats

    def by_row(self, values: Floats) -> tuple[list[str], Floats]:
        """Means over the tensors of embeddings, each layer, norm and head, weighted by size.

        `values` is (T,) or (T, n); returns the rows' names and (R,) or (R, n).
        """
        rows = [
            f"layer {layer}" if layer >= 0 else place
            for layer, place in zip(self.layout.layers, self.layout.places, strict=True)
        ]
        names = list(dict.fromkeys(rows))
        member = np.array([[row == name for row in rows] for name in names], dtype=float)
        member *= self.sizes
        return names, (member / member.sum(axis=1, keepdims=True)) @ values


def preview(
    recipe: Recipe, layout: Layout, sizes: Sequence[int], gram: Floats | None = None
) -> Preview:
    """The geometry of the merge.

    `sizes`: elements of each of the T tensors; `gram`: (T, n, n) over `recipe.sources`. Without
    it the sources count as parallel, so every slerp is its linear approximation (for fine-tunes
    of one base that is close).
    """
    count = len(recipe.sources)
    if gram is None:
        gram = np.ones((len(layout.names), count, count))
    stages = solve(recipe, gram, settings_of(recipe, layout))
    weights = stages[-1].weights
    norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    inner = np.einsum("tij,tj->ti", gram, weights)
    norm = np.sqrt(np.maximum(np.einsum("ti,ti->t", inner, weights), 0.0))
    return Preview(
        layout=layout,
        sources=recipe.sources,
        stages=stages,
        shares=_ratio(weights, weights.sum(axis=1, keepdims=True)),
        similarity=_ratio(inner, norms * norm[:, None]),
        norm_ratio=_ratio(norm, norms.mean(axis=1)),
        sizes=np.asarray(sizes, dtype=float),
    )


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, 0 where a zero tensor makes both vanish."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)
