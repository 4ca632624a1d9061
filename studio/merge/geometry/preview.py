"""What a recipe does to each tensor, from Gram matrices alone: no weights are read here.

In the space of the weights a source is the vector x_k and the result y = Σ w_i x_i. With a base
model b the same is told of task vectors: x_k - b, what a fine-tune changed, and y - b.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from studio.merge.coefficients import StageMix, settings_of, solve
from studio.merge.geometry.frame import Frame, ratio, ratio_or_nan
from studio.merge.gradient import Floats
from studio.merge.layout import Integers, Layout
from studio.merge.recipe import Recipe

ASSUMED_EXCESS = 1e-8  # of a squared norm over an inner product: parallel, and equally far apart


@dataclass(frozen=True)
class Preview:
    """The geometry of a merge for T tensors of n sources.

    `stages`: every stage, the result last. `sizes`: (T,), elements of each tensor. `shares`:
    (T, n), each source's part of the result: w_i / Σw, or with a base w_i |x_i - b| over their
    sum. `is_measured` is False where the sources' geometry is an assumption.
    """

    layout: Layout
    recipe: Recipe
    stages: Sequence[StageMix]
    sizes: Floats
    frame: Frame
    base: str | None
    is_measured: bool

    @property
    def sources(self) -> tuple[str, ...]:
        """The models that are mixed."""
        return self.recipe.sources

    @property
    def weights(self) -> Floats:
        """Of the sources in the result, (T, n)."""
        return self.stages[-1].weights

    @cached_property
    def shares(self) -> Floats:
        """See the class."""
        return self.frame.shares(self.weights)

    @cached_property
    def similarity(self) -> Floats:
        """The cosine between the result's vector and each source's, (T, n)."""
        return ratio(self._along, self.frame.norms * self._length[:, None])

    @cached_property
    def norm_ratio(self) -> Floats:
        """The norm of the result's vector over the mean norm of the sources', (T,)."""
        return ratio(self._length, self.frame.norms.mean(axis=1))

    @cached_property
    def distance(self) -> Floats:
        """From the result to each source, over the norm of the source's vector, (T, n)."""
        return ratio(self.frame.distances(self.weights), self.frame.norms)

    @cached_property
    def survives(self) -> Floats | None:
        """How much of each source's task vector is in the result's, (T, n); None without a base.

        The component of the result's along the source's: 1 is all of it.
        """
        if self.base is None:
            return None
        return ratio(self._along, self.frame.norms**2)

    @cached_property
    def stage_cosines(self) -> list[Floats | None]:
        """Between the vectors of each stage's inputs, (T,); None where there are not two."""
        found: list[Floats | None] = []
        for stage in self.stages:
            pair = [self._weights_of[model] for model in stage.models]
            found.append(self.frame.cosine(*pair) if len(pair) == 2 else None)
        return found

    @cached_property
    def effects(self) -> list[float]:
        """How far each stage moves the result from where its first input alone would leave it.

        The other stages' coefficients stay. Root of the squares' sum over all tensors, in units of
        the distance between the two sources that are farthest apart.
        """
        reach: dict[str | None, Floats] = {self.recipe.final.name: np.ones(len(self.sizes))}
        moved = []
        scale = self.frame.farthest()
        for name, stage in zip(self._names[::-1], self.stages[::-1], strict=True):
            part = reach.get(name, np.zeros(len(self.sizes)))
            for number, model in enumerate(stage.models):
                share = part * stage.coefficients[:, number]
                reach[model] = reach[model] + share if model in reach else share
            first = self._weights_of[stage.models[0]]
            steps = self.frame.between(stage.weights * part[:, None], first * part[:, None])
            moved.append(float(np.sqrt((steps**2).sum())) / scale if scale else 0.0)
        return moved[::-1]

    @cached_property
    def overall(self) -> Floats:
        """The mean share of each source over all parameters, (n,)."""
        mean: Floats = np.average(self.shares, axis=0, weights=self.sizes)
        return mean

    @cached_property
    def _length(self) -> Floats:
        """The norm of the result's vector, (T,)."""
        return self.frame.norm(self.weights)

    @cached_property
    def _along(self) -> Floats:
        """The inner product of the result's vector with each source's, (T, n)."""
        return self.frame.inner(self.weights)

    @cached_property
    def _weights_of(self) -> Mapping[str, Floats]:
        """Of the sources in every source and stage, (T, n)."""
        shape = (len(self.sizes), len(self.sources))
        rows = zip(self.sources, np.eye(len(self.sources)), strict=True)
        found = {model: np.broadcast_to(row, shape) for model, row in rows}
        named = zip(self._names, self.stages, strict=True)
        return found | {name: stage.weights for name, stage in named if name is not None}

    @property
    def _names(self) -> list[str | None]:
        """Of the stages; only the result may have none."""
        return [stage.name for stage in self.recipe.stages]

    def by_row(self, values: Floats) -> tuple[list[str], Floats]:
        """Means over the tensors of embeddings, each layer, norm and head, weighted by size.

        `values` is (T,) or (T, n); returns the rows' names and (R,) or (R, n).
        """
        names, rows = self.layout.rows
        return list(names), means(values, rows, len(names), self.sizes)


def preview(
    recipe: Recipe,
    layout: Layout,
    sizes: Sequence[int],
    gram: Floats | None = None,
    base: str | None = None,
) -> Preview:
    """The geometry of the merge.

    `sizes`: elements of each of the T tensors; `gram`: (T, m, m) over `recipe.sources`, and over
    `base` after them if it is none of them. Without it the sources count as parallel and equally
    far apart, so every slerp is its linear approximation (for fine-tunes of one base that is
    close).
    """
    known = models_of(recipe, base)
    is_measured = gram is not None
    if gram is None:
        shape = (len(layout.names), len(known), len(known))
        gram = np.broadcast_to(1 + ASSUMED_EXCESS * np.eye(len(known)), shape)
    count = len(recipe.sources)
    stages = solve(recipe, gram[:, :count, :count], settings_of(recipe, layout))
    origin = None if base is None else known.index(base)
    frame = Frame(gram, count, origin)
    elements = np.asarray(sizes, dtype=float)
    return Preview(layout, recipe, stages, elements, frame, base, is_measured)


def models_of(recipe: Recipe, base: str | None) -> tuple[str, ...]:
    """The models whose Gram matrices a preview needs, in order: the sources, then the base."""
    extra = () if base is None or base in recipe.sources else (base,)
    return (*recipe.sources, *extra)


def means(values: Floats, members: Integers, count: int, sizes: Floats) -> Floats:
    """Means of (T,) or (T, n) values over the tensors of each of `count` members, by size.

    `members`: (T,), which member a tensor belongs to, -1 for none. NaN values are left out; a
    member without any gets NaN.
    """
    kept = members >= 0
    columns = values[kept].reshape(int(kept.sum()), -1)
    width = columns.shape[1]
    places = members[kept, None] * width + np.arange(width)
    known = sizes[kept, None] * ~np.isnan(columns)
    total = np.bincount(places.ravel(), known.ravel(), count * width)
    above = np.bincount(places.ravel(), (known * np.nan_to_num(columns)).ravel(), count * width)
    found = ratio_or_nan(above.astype(float), total.astype(float))
    return found if values.ndim == 1 else found.reshape(count, width)
