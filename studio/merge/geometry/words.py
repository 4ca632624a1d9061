"""What a preview shows, in sentences."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from studio.merge.geometry.preview import Preview

LITTLE = 0.05  # of the largest distance between two sources
MENTIONED = 0.05  # of the parameters; norms, nearly parallel in all models, are far less
ALL = 0.9995


def in_words(found: Preview, stages: Sequence[dict[str, Any]]) -> list[str]:
    """The overall mix, where SLERP is linear, and which stages have little effect.

    `stages`: as in the charts.
    """
    little = [stage for stage in stages if stage["effect"] < LITTLE]
    return [_mix(found), *_linear(stages), *_little(little)]


def _mix(found: Preview) -> str:
    names = [PurePath(source).name for source in found.sources]
    parts = sorted(zip(found.overall.tolist(), names, strict=True), key=lambda part: -part[0])
    listing = ", ".join(f"{100 * share:.0f} % {name}" for share, name in parts)
    if found.base is None:
        return f"Overall mix, in weights: {listing}."
    changed = PurePath(found.base).name
    return f"Overall mix, in task vectors (what changed from {changed}): {listing}."


def _linear(stages: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for all stages, or none: which of their parameters SLERP mixes linearly."""
    titles: dict[str, list[str]] = {}
    for stage in stages:
        share = stage["linear_share"]
        if share is not None and share >= MENTIONED:
            part = "all" if share >= ALL else f"{_percent(share)} of the"
            titles.setdefault(part, []).append(stage["title"])
    if not titles:
        return []
    where = ", ".join(f"in {part} parameters of {_listed(of)}" for part, of in titles.items())
    why = "the weights of its inputs are nearly parallel (cos > 0.9995)"
    return [f"SLERP is linear where {why}: {where}."]


def _little(stages: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for all stages of little effect, or none."""
    if not stages:
        return []
    most = max(stage["effect"] for stage in stages)
    says = "have little effect: each moves" if len(stages) > 1 else "has little effect: it moves"
    up_to = "at most " if len(stages) > 1 and most >= 0.01 else ""
    return [
        f"{_listed([stage['title'] for stage in stages])} {says} the result by {up_to}"
        f"{_percent(most)} of the largest distance between two sources."
    ]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
