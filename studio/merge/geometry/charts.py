"""A preview as the plain lists that charts are drawn from; numbers have five decimals."""

from itertools import combinations
from typing import Any

import numpy as np

from studio.merge.coefficients import StageMix
from studio.merge.geometry.frame import degrees
from studio.merge.geometry.preview import Preview, means
from studio.merge.geometry.uncertainty import Errors
from studio.merge.geometry.words import in_words
from studio.merge.gradient import Floats
from studio.merge.layout import Integers
from studio.merge.methods.slerp import SLERP, is_linear

DECIMALS = 5
SAME = 1e-9
SHOWN_GROUPS = ("attention", "mlp", "norms")


def charts(
    found: Preview, off: Errors | None = None, *, with_heatmap: bool = True
) -> dict[str, Any]:
    """Everything that is shown of a preview, but for the table of all tensors.

    Where there is no value, as for the angle of a zero vector, stands None. `off`: how far an
    estimate may be off. The heatmap is most of it; without angles there is none.
    """
    rows, shares = found.by_row(found.shares)
    stages = [stage_lists(found, number) for number in range(len(found.stages))]
    for stage, error in zip(stages, off.degrees if off else [], strict=bool(off)):
        stage["degrees_error"] = None if error is None else plain(error)
    base = found.base
    return {
        "sources": list(found.sources),
        "rows": rows,
        "space": "weights" if base is None else "task vectors",
        "base": base,
        "shares": plain(shares),
        "share_error": None if off is None else plain(off.shares),
        "overall": plain(found.overall),
        "similarity": plain(found.by_row(found.similarity)[1]),
        "norm_ratio": plain(found.by_row(found.norm_ratio)[1]),
        "survives": None if found.survives is None else plain(found.by_row(found.survives)[1]),
        "stages": stages,
        "words": in_words(found, stages),
        "heatmap": heatmap(found) if with_heatmap and found.is_measured else None,
    }


def stage_lists(found: Preview, number: int) -> dict[str, Any]:
    """A stage's settings over the rows, the angle between its inputs, and how much it does.

    `linear_share`: of the parameters, where its SLERP is linear.
    """
    stage, cosine = found.stages[number], found.stage_cosines[number]
    is_slerp = found.recipe.stages[number].method == SLERP.name
    data: dict[str, Any] = {
        "title": stage.title,
        "models": list(stage.models),
        "values": {name: plain(found.by_row(v)[1]) for name, v in stage.values.items()},
        "groups": groups(found, stage),
        "degrees": None,
        "degrees_error": None,
        "linear_share": None,
        "effect": round(found.effects[number], DECIMALS),
    }
    if found.is_measured and cosine is not None:
        data["degrees"] = plain(found.by_row(degrees(cosine))[1])
    if found.is_measured and is_slerp and stage.cosine is not None:
        data["linear_share"] = plain(np.average(is_linear(stage.cosine), weights=found.sizes))
    return data


def groups(found: Preview, stage: StageMix) -> dict[str, dict[str, Any]]:
    """{setting: {group: values over the rows}} of the settings that differ within a layer."""
    names, rows = found.layout.rows
    inside = found.layout.layers >= 0
    differing = {}
    for setting, values in stage.values.items():
        if (np.abs(values - found.by_row(values)[1][rows])[inside] < SAME).all():
            continue
        member = np.where(inside, found.layout.groups, "")
        parts = [
            means(values, np.where(member == group, rows, -1), len(names), found.sizes)
            for group in SHOWN_GROUPS
        ]
        highest, lowest = np.fmax.reduce(parts), np.fmin.reduce(parts)
        if (highest - lowest > SAME).any():
            differing[setting] = dict(zip(SHOWN_GROUPS, map(plain, parts), strict=True))
    return differing


def heatmap(found: Preview) -> dict[str, Any]:
    """Angles between sources and distances of the result, layer by module.

    `angle`: in degrees by pair of sources "i,j"; `distance`: from the result to each source over
    the source's norm; each a list over the layers of lists over the modules.
    """
    modules, cells = _cells(found)
    shape = (found.layout.num_layers, len(modules))

    def grid(values: Floats) -> list[Any]:
        flat = means(values, cells, shape[0] * shape[1], found.sizes)
        return list(plain(flat.reshape(shape)))

    angles = degrees(found.frame.source_cosines)
    return {
        "layers": list(range(shape[0])),
        "modules": modules,
        "angle": {
            f"{i},{j}": grid(angles[:, i, j]) for i, j in combinations(range(len(found.sources)), 2)
        },
        "distance": [grid(column) for column in found.distance.T],
    }


def _cells(found: Preview) -> tuple[list[str], Integers]:
    """The modules of the layers, and each tensor's cell: layer * modules + module, or -1."""
    layers = found.layout.layers
    modules = list(
        dict.fromkeys(m for m, n in zip(found.layout.modules, layers, strict=True) if n >= 0)
    )
    number = {module: k for k, module in enumerate(modules)}
    column = np.array([number.get(module, -1) for module in found.layout.modules])
    return modules, np.where(layers >= 0, layers * len(modules) + column, -1)


def tensor_table(found: Preview) -> dict[str, Any]:
    """Every tensor's exact settings, weights and shares: names of columns, and rows."""
    columns = ["tensor", "layer", "elements"]
    parts: list[Floats] = []
    for stage in found.stages:
        for name, values in stage.values.items():
            if values.ndim == 1:
                columns.append(f"{stage.title}: {name}")
            else:
                columns += [f"{stage.title}: {name} of {model}" for model in stage.models]
            parts.append(values.reshape(len(values), -1))
    columns += [f"weight of {source}" for source in found.sources]
    columns += [f"share of {source}" for source in found.sources]
    numbers = plain(np.concatenate([*parts, found.weights, found.shares], axis=1))
    layers = (None if layer < 0 else int(layer) for layer in found.layout.layers)
    heads = zip(found.layout.names, layers, found.sizes.astype(int).tolist(), numbers, strict=True)
    return {"columns": columns, "rows": [[n, layer, size, *rest] for n, layer, size, rest in heads]}


def plain(values: Any) -> Any:
    """Numbers or nested lists, rounded; None for what is not finite."""
    rounded = np.round(values, DECIMALS)
    if np.isfinite(rounded).all():
        return rounded.tolist()
    listed = rounded.astype(object)
    listed[~np.isfinite(rounded)] = None
    return listed.tolist()
