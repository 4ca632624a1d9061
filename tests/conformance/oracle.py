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
    """The layer a tensor belongs to."""
    found = re.search(r"\b(?:layers|h)\.(\d+)\.", name)
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
    vectors, cosine = [part.value for part in inputs], 0.0
    if stage["merge_method"] == "slerp":
        share, cosine = slerp_shares(*vectors, _setting(stage, "t", name))
    elif stage["merge_method"] == "karcher":
        share = karcher_shares(vectors, **stage.get("parameters", {}))
    elif stage["merge_method"] == "model_stock":
        share = stock_shares(vectors)
    elif stage["merge_method"] == "task_arithmetic":
        share = task_shares(stage, name)
    else:
        share = np.array([_setting(stage, "weight", name, m) for m in models_of(stage)])
        if stage.get("parameters", {}).get("normalize", True):
            share = share / share.sum()
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


def task_shares(stage: Mapping[str, Any], name: str) -> Array:
    """Of the base, then of the others: what is added to the others is taken from the base."""
    added = np.array([_setting(stage, "weight", name, m) for m in models_of(stage)[1:]])
    if stage.get("parameters", {}).get("normalize", False) and abs(added.sum()) >= 1e-8:
        added = added / added.sum()
    if "lambda" in stage.get("parameters", {}):
        added = added * _setting(stage, "lambda", name)
    return np.array([1 - added.sum(), *added])


def stock_shares(vectors: Sequence[Array]) -> Array:
    """Of the base, then of its fine-tunes."""
    changes = [vector - vectors[0] for vector in vectors[1:]]
    cosines = [
        np.clip(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-6), -1, 1)
        for number, one in enumerate(changes)
        for other in changes[number + 1 :]
    ]
    count, mean = len(changes), float(np.mean(cosines))
    t = 0.0 if abs(1 + (count - 1) * mean) < 1e-6 else count * mean / (1 + (count - 1) * mean)
    return np.array([1 - t, *[t / count] * count])


def karcher_shares(vectors: Sequence[Array], max_iter: int = 10, tol: float = 1e-5) -> Array:
    """Found on the vectors themselves, then as what the vectors are to be multiplied with."""
    norms = np.array([np.linalg.norm(vector) for vector in vectors])
    used = np.flatnonzero(norms > tol)
    if len(vectors) == 1 or len(used) == 0:
        return np.full(len(vectors), 1.0 if len(vectors) == 1 else 0.0)
    units = np.stack([vectors[i] / norms[i] for i in used])
    mean = units.mean(axis=0)
    mean = units[0] if np.linalg.norm(mean) < tol else mean / np.linalg.norm(mean)
    for _ in range(max_iter):
        tangent = np.zeros_like(mean)
        for unit in units:
            angle = np.arccos(np.clip(mean @ unit, -1, 1))
            if angle >= tol:
                tangent += angle / np.sin(angle) * (unit - (mean @ unit) * mean) / len(units)
        step = np.linalg.norm(tangent)
        if step < tol:
            break
        mean = np.cos(step) * mean + np.sin(step) * tangent / step
        mean /= np.linalg.norm(mean)
    share = np.zeros(len(vectors))
    share[used] = np.linalg.lstsq(units.T, mean * norms.mean(), rcond=None)[0] / norms[used]
    return share


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
