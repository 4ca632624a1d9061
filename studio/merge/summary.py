"""Plans and previews in a few words and numbers, for the command line and the page."""

from typing import Any

from studio.merge import budget
from studio.merge.plan import Plan
from studio.merge.sizes import size_text
from studio.merge.tensors import rows_of
from studio.merge.tokens.vocabularies import vocabulary_table
from studio.weights.dtypes import TORCH_NAMES

ASSUMED_SPEED = 1e9


def summary(plan: Plan) -> dict[str, Any]:
    """What a checked plan will do: bytes, memory, seconds at 1 GB/s, sources, warnings.

    `bytes_missing` are to be downloaded first, in all and for each source; no seconds count them.

    With `vocabularies`, beside each other, if the recipe merges by token.
    """
    found: dict[str, Any] = {}
    if plan.alignment:
        folders = {source.label: source.path for source in plan.sources}
        rows = {source.label: rows_of(source) for source in plan.sources}
        found["vocabularies"] = vocabulary_table(folders, rows)
    return found | {
        "sources": [
            {
                "model": source.label,
                "path": str(source.path),
                "bytes": sum(info.nbytes for info in source.tensors.values()),
                "bytes_missing": source.missing,
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
        "bytes_missing": plan.bytes_missing,
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "peak_memory": budget.peak(plan),
        "seconds": max(plan.bytes_read, plan.bytes_written) / ASSUMED_SPEED,
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
    }


def summary_text(found: dict[str, Any]) -> str:
    """`summary` for a terminal."""
    lines = [_source_text(source) for source in found["sources"]]
    lines.append(f"{found['layers']} layers, {found['tensors']} tensors")
    if found["bytes_missing"]:
        lines.append(f"downloads {size_text(found['bytes_missing'])} first")
    lines += [
        f"reads {size_text(found['bytes_read'])}, writes {size_text(found['bytes_written'])} of "
        f"{found['dtype']} in {found['shards']} file{'s' * (found['shards'] != 1)}",
        f"about {found['seconds']:.1f} s where the disk moves 1 GB/s, "
        f"{size_text(found['peak_memory'])} of memory",
    ]
    lines += [f"warning: {text}" for text in found["warnings"]]
    return "\n".join([*lines, *(f"note: {text}" for text in found["notes"]), "ready to merge"])


def _source_text(source: dict[str, Any]) -> str:
    text = f"{source['model']}: {size_text(source['bytes'])} {source['dtype']}"
    missing = source["bytes_missing"]
    return f"{text}, {size_text(missing)} to download" if missing else text


def preview_text(data: dict[str, Any]) -> str:
    """What the `preview` command found, as a table with a row for each row of the charts."""
    names = [source.rstrip("/").split("/")[-1] for source in data["sources"]]
    stages = [stage for stage in data["stages"] if stage["degrees"]]
    head = ["", *names, "norm ratio", *(f"{stage['title']} angle" for stage in stages)]
    table = [head]
    for i, row in enumerate(data["rows"]):
        shares = [f"{100 * share:.1f} %" for share in data["shares"][i]]
        angles = [_angle(stage["degrees"][i]) for stage in stages]
        table.append([row, *shares, f"{data['norm_ratio'][i]:.4f}", *angles])
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in table]
    return "\n".join([*lines, *data["words"], *filter(None, [data["note"]]), *_sampled(data)])


def _angle(degrees: float | None) -> str:
    return "–" if degrees is None else f"{degrees:.2f}°"


def _sampled(data: dict[str, Any]) -> list[str]:
    """How far an estimate may be off, at most over the rows."""
    if data["share_error"] is None:
        return []
    share = max(max(row) for row in data["share_error"])
    angles = [stage["degrees_error"] for stage in data["stages"] if stage["degrees_error"]]
    angle = max((max(errors) for errors in angles), default=0.0)
    return [
        f"estimated from {100 * data['sampled']:.3g} % of the weights: shares to "
        f"±{100 * share:.2g} %, angles to ±{angle:.2g}°"
    ]
