"""merge-report.json: what a merge was made of and what it did to every tensor."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from studio import __version__
from studio.merge.coefficients import StageMix
from studio.merge.geometry.frame import degrees
from studio.merge.geometry.preview import Preview, preview
from studio.merge.gradient import Floats
from studio.merge.journal import ShardRecord, TensorRecord
from studio.merge.methods.slerp import SLERP, is_linear
from studio.merge.plan import Plan
from studio.merge.recipe_files.recipe_dump import dump_recipe, fingerprint
from studio.weights.dtypes import TORCH_NAMES

FILE = "merge-report.json"
FORMAT = 2
DIGITS = 6  # significant digits of what is there to be read; weights are exact

Report = dict[str, Any]


def make_report(plan: Plan, records: Sequence[ShardRecord], seconds: float) -> Report:
    """The report of a finished merge.

    `records`: one for each shard of the plan, with every mixed tensor; `seconds`: how long it took.
    """
    found = {name: tensor for record in records for name, tensor in record.tensors.items()}
    tensors = [found[name] for name in plan.layout.names]
    seen = _preview(plan, tensors)
    linear = _linear(plan, seen)
    return {
        "format": FORMAT,
        "studio": __version__,
        "recipe": {"fingerprint": fingerprint(plan.recipe), "yaml": dump_recipe(plan.recipe)},
        "dtype": TORCH_NAMES[plan.dtype],
        "sources": _sources(plan),
        "shards": [{"file": r.file, "size": r.size, "digest": r.digest} for r in records],
        "summary": _summary(plan, seen, linear),
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "seconds": round(float(seconds), 3),
        "bytes_read": plan.bytes_read,
        "bytes_written": sum(record.size for record in records),
        "tensors": _tensors(plan, tensors, seen, linear),
    }


def report_text(report: Report) -> str:
    """The report as JSON; the tensors come last, one line for each."""
    lines = []
    for key, value in sorted(report.items(), key=lambda item: item[0] == "tensors"):
        if key == "tensors":
            rows = ",\n".join(f"  {_compact(row)}" for row in value)
            text = f"[\n{rows}\n ]" if value else "[]"
        else:
            text = json.dumps(value, ensure_ascii=False, indent=1).replace("\n", "\n ")
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _preview(plan: Plan, tensors: Sequence[TensorRecord]) -> Preview:
    count = len(plan.sources)
    gram = np.array([tensor.gram for tensor in tensors], dtype=float).reshape(-1, count, count)
    size = {job.name: job.numel for shard in plan.shards for job in shard.tensors}
    return preview(plan.recipe, plan.layout, [size[name] for name in plan.layout.names], gram)


def _sources(plan: Plan) -> list[dict[str, Any]]:
    """Sources as the recipe names them; where a snapshot lies on this machine is left out."""
    return [
        {
            "model": source.label,
            "name": PurePath(source.label).name,
            "fingerprint": source.fingerprint(),
            "bytes": sum(info.nbytes for info in source.tensors.values()),
            "dtype": sorted({TORCH_NAMES[info.dtype] for info in source.tensors.values()}),
        }
        for source in plan.sources
    ]


def _linear(plan: Plan, seen: Preview) -> dict[str, Floats]:
    """For each slerp stage, 1 for the tensors (T,) whose inputs are too close to parallel."""
    return {
        mix.title: is_linear(mix.cosine).astype(float)
        for stage, mix in zip(plan.recipe.stages, seen.stages, strict=True)
        if stage.method == SLERP.name and mix.cosine is not None
    }


def _summary(plan: Plan, seen: Preview, linear: Mapping[str, Floats]) -> dict[str, Any]:
    """Means over all mixed parameters."""
    part = seen.sizes / seen.sizes.sum() if seen.sizes.sum() else seen.sizes
    jobs = [job for shard in plan.shards for job in shard.tensors]
    return {
        "parameters": sum(job.numel for job in jobs),
        "tensors": len(jobs),
        "layers": plan.layout.num_layers,
        "shares": dict(zip(seen.sources, _short(part @ seen.shares), strict=True)),
        "similarity": dict(zip(seen.sources, _short(part @ seen.similarity), strict=True)),
        "norm_ratio": _short(part @ seen.norm_ratio),
        "linear": {title: _short(part @ rows) for title, rows in linear.items()},
    }


def _tensors(
    plan: Plan, tensors: Sequence[TensorRecord], seen: Preview, linear: Mapping[str, Floats]
) -> list[dict[str, Any]]:
    norms = [_norm(tensor) for tensor in tensors]
    rows = []
    for row, name in enumerate(plan.layout.names):
        entry: dict[str, Any] = {
            "name": name,
            "layer": int(plan.layout.layers[row]),
            "place": plan.layout.places[row],
            "weights": list(tensors[row].weights),
            "shares": _short(seen.shares[row]),
        }
        entry |= _settings(seen.stages, row)
        cosines = {mix.title: mix.cosine[row] for mix in seen.stages if mix.cosine is not None}
        angles = {title: degrees(cos) for title, cos in cosines.items()}
        entry["cosine"] = {title: round(float(cos), 9) for title, cos in cosines.items()}
        entry["angles"] = {title: _short(angle) for title, angle in angles.items()}
        entry["norm"] = _short(norms[row])
        entry["norm_ratio"] = _short(seen.norm_ratio[row])
        entry["linear"] = [title for title, flags in linear.items() if flags[row]]
        rows.append(entry)
    return rows


def _settings(stages: Sequence[StageMix], row: int) -> dict[str, dict[str, Any]]:
    """What each stage's settings are for a tensor: {"t": {stage: value}}."""
    found: dict[str, dict[str, Any]] = {}
    for mix in stages:
        for name, values in mix.values.items():
            found.setdefault(name, {})[mix.title] = _short(values[row])
    return found


def _norm(tensor: TensorRecord) -> float:
    weights = np.array(tensor.weights)
    return float(np.sqrt(max(weights @ np.array(tensor.gram) @ weights, 0.0)))


def _short(value: Any) -> Any:
    """A number, or a list of them, with the digits that mean something to a reader."""
    if np.ndim(value):
        return [_short(item) for item in value]
    return float(f"{float(value):.{DIGITS}g}")


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
