"""Where the result goes: what is wrong with the place, and whether it has the room."""

import os
import shutil
from pathlib import Path

from studio.merge.journal import NAME as JOURNAL
from studio.merge.plan import ShardJob

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


def space_problems(out: Path, shards: tuple[ShardJob, ...]) -> list[str]:
    """Whether the disk of `out` has room for the files still to be written.

    Empty for a place of which `folder_problems` tells already.
    """
    if folder_problems(out):
        return []
    done = sum(f.stat().st_blocks * 512 for f in partial_folder(out).glob("*.safetensors"))
    needed = sum(shard.nbytes + len(shard.header()) for shard in shards) + SLACK - done
    home = _home(out.resolve())
    free = shutil.disk_usage(home).free
    if free >= needed:
        return []
    return [
        f"{home} has {free / 1e9:.2f} GB free, the result needs {needed / 1e9:.2f} GB; "
        f"free {(needed - free) / 1e9:.2f} GB or choose another output"
    ]


def _home(whole: Path) -> Path:
    """The nearest folder above that exists already."""
    return next(parent for parent in whole.parents if parent.exists())
