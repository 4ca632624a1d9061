"""The central idea: every stage of a recipe is a mix of the sources.

For one tensor let x_1 … x_n be the sources and G = [<x_i, x_j>] their Gram matrix. A stage that
combines a = Σ u_i x_i and b = Σ v_i x_i needs only <a, a> = uᵀGu, <b, b> = vᵀGv and <a, b> = uᵀGv
to find its coefficients α, β, and its result is again a mix, with w = α·u + β·v. By induction the
result of a recipe of any depth is Σ w_i x_i, with w found from G and the settings alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress

import numpy as np

from studio.errors import StudioError, nearest
from studio.merge.gradient import Floats, Parameter, evaluate
from studio.merge.layout import Integers, Layout
from studio.merge.methods import METHODS, cosine
from studio.merge.recipe import Recipe, Slice, Stage


@dataclass(frozen=True, slots=True)
class StageMix:
    """What a stage does to each of T tensors.

    `values`: the settings, (T,) or (T, k). `coefficients`: of the stage's k inputs, (T, k).
    `weights`: of the recipe's n sources in the stage's result, (T, n). `cosine`: between the two
    inputs, (T,), or None where there are not two.
    """

    title: str
    models: tuple[str, ...]
    values: Mapping[str, Floats]
    coefficients: Floats
    weights: Floats
    cosine: Floats | None


def settings_of(recipe: Recipe, layout: Layout) -> list[dict[str, Floats]]:
    """The settings of every stage for every tensor: (T,), or (T, k) for per-input ones.

    Raises StudioError where a slice ends beyond the model, a tensor gets no value, or the method
    can do nothing with the values.
    """
    return [_stage_values(stage, layout) for stage in recipe.stages]


def idle_filters(recipe: Recipe, layout: Layout) -> list[str]:
    """A sentence for each filter that is in no tensor's name: its rule changes nothing."""
    words = sorted({word for tensor in layout.names for word in tensor.split(".")})
    idle = []
    for stage in recipe.stages:
        inputs = [entry.settings for part in stage.slices for entry in part.inputs]
        levels = (*inputs, *(part.settings for part in stage.slices), stage.settings)
        for name, rule in ((n, r) for level in levels for n, rules in level.items() for r in rules):
            if not any(rule.matches(tensor) for tensor in layout.names):
                meant = nearest(rule.filter or "", words)
                idle.append(
                    f'stage {stage.title}: the rule of {name} for "{rule.filter}" changes nothing, '
                    f"no tensor has that in its name{meant}"
                )
    return list(dict.fromkeys(idle))


def solve(recipe: Recipe, gram: Floats, settings: list[dict[str, Floats]]) -> list[StageMix]:
    """All stages in order, the result last.

    `gram`: (T, n, n) over `recipe.sources`; `settings`: from `settings_of`, for the same T.
    """
    identity = np.eye(len(recipe.sources))
    mixes = {
        model: np.broadcast_to(row, (len(gram), len(identity)))
        for model, row in zip(recipe.sources, identity, strict=True)
    }
    solved = []
    for stage, values in zip(recipe.stages, settings, strict=True):
        inputs = np.stack([mixes[model] for model in stage.models], axis=1)
        inner = inputs @ gram @ inputs.transpose(0, 2, 1)
        coefficients = METHODS[stage.method].coefficients(inner, values)
        weights = np.einsum("tk,tkn->tn", coefficients, inputs)
        angle = cosine(inner) if inner.shape[1] == 2 else None
        solved.append(StageMix(stage.title, stage.models, values, coefficients, weights, angle))
        if stage.name is not None:
            mixes[stage.name] = weights
    return solved


def _stage_values(stage: Stage, layout: Layout) -> dict[str, Floats]:
    if (end := stage.slices[-1].end) is not None and end != layout.num_layers:
        raise StudioError(
            f"stage {stage.title}: its slices end at layer {end}, the models have "
            f"{layout.num_layers}; cover the whole model"
        )
    part_of = _slice_numbers(stage, layout)
    values: dict[str, Floats] = {}
    for name, setting in METHODS[stage.method].settings.items():
        columns = len(stage.models) if setting.per_input else 1
        found = np.full((len(layout.names), columns), np.nan)
        for number, part in enumerate(stage.slices):
            rows = np.flatnonzero(part_of == number)
            tensors = list(compress(layout.names, part_of == number))
            positions = _positions(part, layout, rows)
            for column in range(setting.skips_base, columns):
                levels = _levels(stage, part, name, column if setting.per_input else None)
                found[rows, column] = evaluate(levels, tensors, positions)
        if setting.skips_base:
            found[:, 0] = 0.0
        if setting.default is not None:
            found = np.where(np.isnan(found), setting.default, found)
        _refuse_gaps(stage, layout, name, found)
        values[name] = found if setting.per_input else found[:, 0]
    _try(stage, values, len(layout.names))
    return values


def _try(stage: Stage, values: Mapping[str, Floats], count: int) -> None:
    """Apply the method to orthogonal tensors: what fails for them fails for any, known early."""
    inputs = len(stage.models)
    orthogonal = np.broadcast_to(np.eye(inputs), (count, inputs, inputs))
    try:
        METHODS[stage.method].coefficients(orthogonal, values)
    except StudioError as error:
        raise StudioError(f"stage {stage.title}: {error}") from None


def _levels(stage: Stage, part: Slice, name: str, column: int | None) -> list[Parameter]:
    """Where mergekit looks for a setting, innermost first."""
    inner = [] if column is None else [part.inputs[column].settings]
    return [settings.get(name, ()) for settings in (*inner, part.settings, stage.settings)]


def _slice_numbers(stage: Stage, layout: Layout) -> Integers:
    """Which slice rules each tensor; embeddings follow the first, norm and head the last."""
    ends = [part.end or layout.num_layers for part in stage.slices]
    numbers = np.searchsorted(ends, layout.layers, side="right")
    after = np.array([place in ("norm", "head") for place in layout.places], dtype=bool)
    return np.where(after, len(ends) - 1, numbers)


def _positions(part: Slice, layout: Layout, rows: Integers) -> Floats:
    """0 at the slice's first layer, 1 at its last; tensors outside the layers sit at 0.

    That they read the first anchor is mergekit's convention, lm_head included; so is 1 for a
    slice of a single layer.
    """
    layers = layout.layers[rows]
    count = (part.end or layout.num_layers) - part.start
    positions = (layers - part.start) / (count - 1) if count > 1 else np.ones(len(rows))
    return np.where(layers < 0, 0.0, positions)


def _refuse_gaps(stage: Stage, layout: Layout, name: str, values: Floats) -> None:
    gaps = np.flatnonzero(np.isnan(values).any(axis=1))
    if len(gaps):
        raise StudioError(
            f"stage {stage.title}: no rule of {name} matches {layout.names[gaps[0]]}"
            f"{f' and {len(gaps) - 1} more tensors' if len(gaps) > 1 else ''}; "
            "add a rule without a filter at the end"
        )
