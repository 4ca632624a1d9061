"""Merge, die at the n-th operation on the output, merge again: for every n, in forked children.

    python die_at_every_step.py RECIPE FOLDER

Prints the operations as a JSON list. Leaves FOLDER/reference, made without dying, and for each
operation FOLDER/out-N, made by a merge that died just before it and one that went on.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.merge.journal import NAME as JOURNAL
from studio.merge.run import merge
from tests.faults.merging import plan_for

WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.truncate")
DIED = 77


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch(out: Path, on_operation: Callable[[str], None]) -> None:
    """Call back before each operation on `out`, its partial folder, and each sync."""
    real_sync, real_write = os.fsync, os.pwrite

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WATCHED and (event == "os.truncate" or str(out) in str(arguments[0])):
            on_operation(event)

    def sync(handle: int) -> None:
        on_operation("sync")
        real_sync(handle)

    def write(handle: int, data: bytes, offset: int) -> int:
        on_operation("write")
        return real_write(handle, data, offset)

    sys.addaudithook(look)
    os.fsync, os.pwrite = sync, write


def run_merge(recipe: Path, out: Path) -> None:
    merge(plan_for(recipe, out, shard_bytes=20_000), out, lambda progress: None)


def count_steps(recipe: Path, out: Path) -> list[str]:
    """The operations of an undisturbed merge, in order."""
    log = out.with_name("steps")

    def work() -> None:
        with open(log, "w", buffering=1) as file:
            watch(out, lambda operation: print(operation, file=file))
            run_merge(recipe, out)

    assert in_child(work) == 0
    steps = log.read_text().split()
    log.unlink()
    return steps


def die_at(recipe: Path, out: Path, number: int) -> None:
    left = [number]

    def die_if_it_is_time(operation: str) -> None:
        if left[0] == 0:
            os._exit(DIED)
        left[0] -= 1

    def work() -> None:
        watch(out, die_if_it_is_time)
        run_merge(recipe, out)

    assert in_child(work) == DIED, f"step {number} was not reached"
    if out.exists() and not (out / JOURNAL).exists():
        return  # complete: the same command would only say that the folder is not empty
    assert in_child(lambda: run_merge(recipe, out)) == 0, f"no resuming after step {number}"


if __name__ == "__main__":
    given_recipe, folder = Path(sys.argv[1]), Path(sys.argv[2])
    run_merge(given_recipe, folder / "reference")  # here, so that the children find all loaded
    found = count_steps(given_recipe, folder / "counted")
    for step in range(len(found)):
        die_at(given_recipe, folder / f"out-{step}", step)
    print(json.dumps(found))
