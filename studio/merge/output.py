"""Where the result goes: what is wrong with the place, and whether the disks have the room."""

import os
from collections.abc import Sequence
from pathlib import Path

from studio.merge.journal import NAME as JOURNAL
from studio.merge.plan import ShardJob
from studio.weights.checkpoint import Checkpoint
from studio.weights.room import Need, download_need, shortages

SLACK = 64 << 20  # bytes for everything beside the weights


def partial_folder(out: Path) -> Path:
    """Where the result is built before it is complete: beside `out`, on the same disk."""
    whole = out.resolve()
    return whole.with_name(whole.name + ".partial")


def folder_problems(out: Path) -> list[str]:
    """Why no model can be written to the folder `out`; empty if one can."""
    try:
        return _problems(out, out.resolve())
    except (OSError, RuntimeError) as error:  # a name too long; RuntimeError: a loop of links
        reason = getattr(error, "strerror", None) or str(error)
        return [f"{out} cannot be written ({reason}); choose another output"]


def _problems(out: Path, whole: Path) -> list[str]:
    if os.path.ismount(whole):  # nothing can be renamed to it
        return [f"{out} is the root of a disk; choose a folder inside it"]
    # A merge killed in its last step leaves the journal in the finished folder; that may go on.
    unfinished = (whole / JOURNAL).exists()
    if whole.exists() and not unfinished and (not whole.is_dir() or any(whole.iterdir())):
        return [f"{out} exists and is not an empty folder; choose another output"]
    home = _home(whole)
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        return [f"{out} cannot be made: {home} is not a folder that may be written to"]
    partial = partial_folder(out)
    if partial.exists() and not (partial / JOURNAL).exists():
        if not partial.is_dir() or any(partial.iterdir()):
            return [
                f"{partial} exists and no merge has made it, but the result of {out} would be "
                "built there; move it away or choose another output"
            ]
    return []


def space_problems(
    out: Path | None, shards: Sequence[ShardJob], sources: Sequence[Checkpoint]
) -> list[str]:
    """Which disks lack the room for the files still to be written and to be downloaded.

    `out` may be a place of which `folder_problems` tells already; what is written there does not
    count then, nor without one.
    """
    return shortages([*_of_result(out, shards), *_of_downloads(sources)])


def _of_result(out: Path | None, shards: Sequence[ShardJob]) -> list[Need]:
    if out is None or folder_problems(out):
        return []
    done = sum(f.stat().st_blocks * 512 for f in partial_folder(out).glob("*.safetensors"))
    nbytes = sum(shard.nbytes + len(shard.header()) for shard in shards) + SLACK - done
    return [Need(_home(out.resolve()), nbytes, "the result needs", "choose another output")]


def _of_downloads(sources: Sequence[Checkpoint]) -> list[Need]:
    missing = [source for source in sources if source.missing]
    if not missing:
        return []
    models = [source.label for source in missing]
    return [download_need(models, missing[0].path, sum(source.missing for source in missing))]


def _home(whole: Path) -> Path:
    """The nearest folder above that exists already."""
    return next(parent for parent in whole.parents if parent.exists())
