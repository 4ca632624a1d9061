"""What a preview shows, in sentences."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from studio.merge.geometry.preview import Preview

LITTLE = 0.05  # of the largest distance between two sources
ALL = 0.9995


def in_words(found: Preview, stages: Sequence[dict[str, Any]]) -> list[str]:
    """The overall mix, where SLERP is linear, and which stages have little effect.

    `stages`: as in the charts.
    """
    said = [_mix(found)]
    said += [text for stage in stages if (text := _linear(stage))]
    said += [_little(stage) for stage in stages if stage["effect"] < LITTLE]
    return said


def _mix(found: Preview) -> str:
    names = [PurePath(source).name for source in found.sources]
    parts = sorted(zip(found.overall.tolist(), names, strict=True), key=lambda part: -part[0])
    listing = ", ".join(f"{100 * share:.0f} % {name}" for share, name in parts)
    if found.base is None:
        return f"Overall mix: {listing}."
    return f"Of what changed against {PurePath(found.base).name}: {listing}."


def _linear(stage: dict[str, Any]) -> str:
    share = stage["linear_share"]
    if share is None:
        return ""
    where = f"{stage['title']}: its inputs are nearly parallel (cos > 0.9995)"
    if share >= ALL:
        return f"{where} in every tensor, so SLERP is linear there."
    if share > 0:
        return f"{where} in {_percent(share)} of the parameters, where SLERP is linear."
    return f"{stage['title']}: SLERP is spherical in every tensor."


def _little(stage: dict[str, Any]) -> str:
    return (
        f"{stage['title']} has little effect: it moves the result by {_percent(stage['effect'])} "
        "of the largest distance between two sources."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
