"""How far a preview may be off where the Gram matrices are estimates (the delta method)."""

from dataclasses import dataclass

import numpy as np

from studio.merge.coefficients import solve
from studio.merge.geometry.frame import Frame, degrees
from studio.merge.geometry.preview import Preview
from studio.merge.gradient import Floats

# Standard errors to each side. Two would cover 95 % of normal errors; a few rows that stand out
# make these errors' tails longer.
SIDES = 2.5


@dataclass(frozen=True, slots=True)
class Errors:
    """Half-widths of intervals that cover about 95 %.

    `shares`: (R, n) over the rows of the charts, `degrees`: of each stage's angle, (R,) or None.
    """

    shares: Floats
    degrees: list[Floats | None]


def errors(found: Preview, deviations: Floats) -> Errors:
    """The uncertainty of a preview; `deviations`: (T, q, m, m), see `sampling.Estimate`.

    The preview is computed with each deviation added in turn; the squares of what changes add up,
    and so do those of a row's tensors, whose blocks were drawn independently.
    """
    moved = _moved(found, deviations)
    count = deviations.shape[1]

    def half_width(values: Floats, centre: Floats) -> Floats:
        steps = values.reshape(len(centre), count, -1) - centre.reshape(len(centre), 1, -1)
        variance = np.nan_to_num((steps**2).sum(axis=1))
        return SIDES * _row_deviation(found, variance)

    angles: list[Floats | None] = []
    for cosine, centre in zip(moved.stage_cosines, found.stage_cosines, strict=True):
        if cosine is None or centre is None:
            angles.append(None)
        else:
            angles.append(half_width(degrees(cosine), degrees(centre))[:, 0])
    return Errors(half_width(moved.shares, found.shares), angles)


def _moved(found: Preview, deviations: Floats) -> Preview:
    """The preview of T·q tensors: each with each of its q deviations."""
    count = deviations.shape[1]
    size = found.frame.gram_of_all.shape[-1]
    gram = (found.frame.gram_of_all[:, None] + deviations).reshape(-1, size, size)
    settings = [
        {name: np.repeat(values, count, axis=0) for name, values in stage.values.items()}
        for stage in found.stages
    ]
    sources = len(found.sources)
    stages = solve(found.recipe, gram[:, :sources, :sources], settings)
    return Preview(
        layout=found.layout,
        recipe=found.recipe,
        stages=stages,
        sizes=np.repeat(found.sizes, count),
        frame=Frame(gram, sources, found.frame.base),
        base=found.base,
        is_measured=True,
    )


def _row_deviation(found: Preview, variance: Floats) -> Floats:
    """Of the rows' means, (R, k), from the variances of the tensors' values, (T, k)."""
    names, rows = found.layout.rows
    belongs = (rows == np.arange(len(names))[:, None]) * found.sizes
    part = belongs / np.maximum(belongs.sum(axis=1, keepdims=True), 1)
    deviation: Floats = np.sqrt(part**2 @ variance)
    return deviation
