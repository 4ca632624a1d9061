"""Plans and previews in a few words and numbers, for the command line and the page."""

from typing import Any

import numpy as np

from studio.merge.methods.slerp import LINEAR_ABOVE
from studio.merge.plan import PIECE, Plan
from studio.merge.preview import Preview
from studio.weights.dtypes import ITEMSIZE, TORCH_NAMES

# Of the process with its compiled loops; each worker adds a piece of every source and a buffer.
RESIDENT = 220 << 20
BUFFER = 4 << 20
ASSUMED_SPEED = 1e9


def summary(plan: Plan) -> dict[str, Any]:
    """What a checked plan will do: bytes, memory, seconds at 1 GB/s, sources, warnings."""
    return {
        "sources": [
            {
                "model": source.label,
                "path": str(source.path),
                "bytes": sum(info.nbytes for info in source.tensors.values()),
                "dtype": "/".join(
                    sorted({TORCH_NAMES[info.dtype] for info in source.tensors.values()})
                ),
            }
            for source in plan.sources
        ],
        "layers": plan.layout.num_layers,
        "tensors": sum(len(shard.tensors) for shard in plan.shards),
        "shards": len(plan.shards),
        "dtype": TORCH_NAMES[plan.dtype],
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "peak_memory": _peak_memory(plan),
        "seconds": max(plan.bytes_read, plan.bytes_written) / ASSUMED_SPEED,
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
    }


def _peak_memory(plan: Plan) -> int:
    """Bytes of this process; the rest of the sources is in the page cache, which gives way."""
    widest = max(ITEMSIZE[t.dtype] for source in plan.sources for t in source.tensors.values())
    return RESIDENT + plan.workers * (BUFFER + PIECE * len(plan.sources) * widest)


def summary_text(found: dict[str, Any]) -> str:
    """`summary` for a terminal."""
    lines = [
        f"{source['model']}: {source['bytes'] / 1e9:.2f} GB {source['dtype']}"
        for source in found["sources"]
    ]
    lines += [
        f"{found['layers']} layers, {found['tensors']} tensors",
        f"reads {found['bytes_read'] / 1e9:.2f} GB, writes {found['bytes_written'] / 1e9:.2f} GB "
        f"{found['dtype']} in {found['shards']} file(s)",
        f"about {found['seconds']:.0f} s where the disk moves 1 GB/s, "
        f"{found['peak_memory'] / 2**20:.0f} MiB of memory",
    ]
    lines += [f"warning: {text}" for text in found["warnings"]]
    return "\n".join([*lines, *(f"note: {text}" for text in found["notes"]), "ready to merge"])


def preview_data(found: Preview) -> dict[str, Any]:
    """The rows of a preview (embeddings, layers, norm, head) with what happens in each."""
    rows, shares = found.by_row(found.shares)
    _, similarity = found.by_row(found.similarity)
    _, norm_ratio = found.by_row(found.norm_ratio)
    return {
        "sources": list(found.sources),
        "rows": rows,
        "shares": shares.round(6).tolist(),
        "similarity": similarity.round(6).tolist(),
        "norm_ratio": norm_ratio.round(6).tolist(),
        "overall": np.average(found.shares, axis=0, weights=found.sizes).round(6).tolist(),
        "stages": [_stage_data(found, number) for number in range(len(found.stages))],
    }


def _stage_data(found: Preview, number: int) -> dict[str, Any]:
    stage = found.stages[number]
    data: dict[str, Any] = {"name": stage.title, "models": list(stage.models)}
    for name, values in stage.values.items():
        data[name] = found.by_row(values)[1].round(6).tolist()
    if stage.cosine is not None:
        degrees = np.degrees(np.arccos(stage.cosine))
        linear = np.abs(stage.cosine) > LINEAR_ABOVE
        data["degrees"] = found.by_row(degrees)[1].round(4).tolist()
        data["linear_share"] = float(np.average(linear, weights=found.sizes))
    return data


def preview_text(data: dict[str, Any]) -> str:
    """`preview_data` as a table: a row for the embeddings, each layer, the norm and the head."""
    names = [source.rstrip("/").split("/")[-1] for source in data["sources"]]
    stages = [stage for stage in data["stages"] if "degrees" in stage]
    head = ["", *names, "norm ratio", *(f"{stage['name']} angle" for stage in stages)]
    table = [head]
    for i, row in enumerate(data["rows"]):
        shares = [f"{100 * share:.1f} %" for share in data["shares"][i]]
        angles = [f"{stage['degrees'][i]:.2f}°" for stage in stages]
        table.append([row, *shares, f"{data['norm_ratio'][i]:.4f}", *angles])
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in table]
    mix = ", ".join(
        f"{100 * share:.1f} % {name}" for share, name in zip(data["overall"], names, strict=True)
    )
    return "\n".join([*lines, f"overall: {mix}"])
