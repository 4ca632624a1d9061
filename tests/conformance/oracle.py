"""Merging by the book: stage by stage, every tensor whole, in float64, with nothing of the engine.

Reads the stages as plain data and the tensors as numpy arrays. Slow, short, and written apart from
the engine, so that both can be wrong only if both misread the same rule.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
OUTSIDE = -1


@dataclass
class Merged:
    """A result for one tensor.

    `weights`: of each source in it; `cosines`: the angle between the two inputs of every slerp on
    the way.
    """

    value: Array
    weights: Array
    cosines: list[float] = field(default_factory=list)


def layer_of(name: str) -> int:
    """The layer a tensor of the toy architectures belongs to."""
    found = re.search(r"layers\.(\d+)\.", name)
    return int(found[1]) if found else OUTSIDE


def merge(
    stages: Sequence[Mapping[str, Any]], tensors: Mapping[str, Array], name: str, num_layers: int
) -> Merged:
    """The result for the tensor `name`; `tensors` holds every source's, in the order A, B, C."""
    known = {
        source: Merged(tensor.astype(np.float64), unit)
        for (source, tensor), unit in zip(tensors.items(), np.eye(len(tensors)), strict=True)
    }
    waiting = [dict(stage, num_layers=num_layers) for stage in stages]
    while waiting:
        stage = next(s for s in waiting if all(m in known for m in models_of(s)))
        waiting.remove(stage)
        known[stage.get("name")] = _one_stage(stage, known, name)
    return known[None]


def models_of(stage: Mapping[str, Any]) -> list[str]:
    """The inputs, the base first."""
    listed = stage.get("models") or stage["slices"][0]["sources"]
    names = [entry["model"] for entry in listed]
    base = stage.get("base_model")
    return names if base is None else [base, *(n for n in names if n != base)]


def _one_stage(stage: Mapping[str, Any], known: Mapping[Any, Merged], name: str) -> Merged:
    inputs = [known[model] for model in models_of(stage)]
    if stage["merge_method"] == "slerp":
        t = _setting(stage, "t", name)
        share, cosine = slerp_shares(inputs[0].value, inputs[1].value, t)
    else:
        share = np.array([_setting(stage, "weight", name, m) for m in models_of(stage)])
        if stage.get("parameters", {}).get("normalize", True):
            share = share / share.sum()
        cosine = 0.0
    return Merged(
        sum(s * part.value for s, part in zip(share, inputs, strict=True)),
        sum(s * part.weights for s, part in zip(share, inputs, strict=True)),
        [*(c for part in inputs for c in part.cosines), cosine],
    )


def slerp_shares(a: Array, b: Array, t: float) -> tuple[Array, float]:
    """What mergekit multiplies the two tensors with, and the cosine of their angle."""
    norms = [np.sqrt(np.sum(x * x)) for x in (a, b)]
    norms = [norm if norm > 1e-8 else 1.0 for norm in norms]
    cosine = float(np.clip(np.sum((a / norms[0]) * (b / norms[1])), -1, 1))
    if abs(cosine) > 0.9995:
        return np.array([1 - t, t]), cosine
    angle = np.arccos(cosine)
    return np.array([np.sin((1 - t) * angle), np.sin(t * angle)]) / np.sin(angle), cosine


def _setting(stage: Mapping[str, Any], key: str, name: str, model: str | None = None) -> float:
    """The innermost value there is: of the model, the slice, the stage."""
    layer = layer_of(name)
    part, position = _slice(stage, layer, name)
    sources = part.get("sources") or stage["models"]
    levels = [entry for entry in sources if entry["model"] == model]
    for level in [*levels, part, stage]:
        value = level.get("parameters", {}).get(key)
        found = None if value is None else _value(value, position, name)
        if found is not None:
            return found
    raise LookupError(f"{key} is missing for {name}")


def _slice(stage: Mapping[str, Any], layer: int, name: str) -> tuple[Mapping[str, Any], float]:
    """The slice that rules a tensor, and the tensor's position in it from 0 to 1."""
    if not stage.get("slices"):
        start, end, part = 0, stage["num_layers"], {}
    elif layer == OUTSIDE:
        part = stage["slices"][0 if "embed" in name else -1]
        return part, 0.0
    else:
        part = next(p for p in stage["slices"] if layer in range(*p["sources"][0]["layer_range"]))
        start, end = part["sources"][0]["layer_range"]
    if layer == OUTSIDE:
        return part, 0.0
    return part, (layer - start) / (end - start - 1) if end - start > 1 else 1.0


def _value(setting: Any, position: float, name: str) -> float | None:
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list):
        return float(setting)
    if isinstance(setting[0], Mapping):
        for rule in setting:
            if rule.get("filter", "*") == "*" or rule["filter"] in name:
                return _value(rule["value"], position, name)
        return None
    anchors = [float(anchor) for anchor in setting]
    place = position * (len(anchors) - 1)
    left = min(int(place), len(anchors) - 2) if len(anchors) > 1 else 0
    if len(anchors) == 1:
        return anchors[0]
    return anchors[left] + (place - left) * (anchors[left + 1] - anchors[left])
