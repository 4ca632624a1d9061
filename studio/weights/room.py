"""Whether the disks have the room for what is to be written to them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.weights.hub import CACHE_VARIABLE


@dataclass(frozen=True, slots=True)
class Need:
    """Room that is needed on the disk of `place`: how much, for what, and how to need none."""

    place: Path
    nbytes: int
    what: str
    remedy: str


def download_need(models: Sequence[str], place: Path, nbytes: int) -> Need:
    """The room that downloads into the Hub's cache take; `place` is a folder in it."""
    what = f"the download of {', '.join(models)} needs"
    return Need(place, nbytes, what, f"set {CACHE_VARIABLE} to a folder on a larger disk")


def shortages(needs: Sequence[Need]) -> list[str]:
    """Which disks lack the room for all that is needed on each of them; empty if none does."""
    disks: dict[int, list[Need]] = {}
    for need in needs:
        disks.setdefault(need.place.stat().st_dev, []).append(need)
    problems = []
    for on_disk in disks.values():
        place, needed = on_disk[0].place, sum(need.nbytes for need in on_disk)
        free = shutil.disk_usage(place).free
        if free < needed:
            wants = " and ".join(f"{need.what} {need.nbytes / 1e9:.2f} GB" for need in on_disk)
            remedies = ", or ".join(need.remedy for need in on_disk)
            problems.append(
                f"{place} has {free / 1e9:.2f} GB free, {wants}; "
                f"free {(needed - free) / 1e9:.2f} GB, or {remedies}"
            )
    return problems
