"""Processes as the kernel lists them: who is alive, who belongs together, what they share."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
SHARED = "/dev/shm/"


def started(pid: int) -> int | None:
    """When a process started, in ticks since boot: with the pid, a name nobody else will have.

    None if there is no such process, or only its remains.
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def is_alive(pid: int, start: int) -> bool:
    """Whether exactly this process still runs."""
    return started(pid) == start


def belonging(log: Path, group: int | None = None) -> set[int]:
    """The processes whose output goes into `log`, and those of a process group; not this one.

    An engine's processes inherit their output, whatever becomes of their parents.
    """
    target = os.path.realpath(log)
    found = set()
    for entry in PROC.iterdir():
        if not entry.name.isdecimal() or (pid := int(entry.name)) == os.getpid():
            continue
        fields = _stat(pid)
        if fields is None or fields[0] in ("Z", "X"):
            continue
        if int(fields[2]) == group or _writes_to(pid, target):
            found.add(pid)
    return found


def shared_memory(pids: Iterable[int]) -> set[str]:
    """The files below /dev/shm that the processes have mapped, without those deleted already."""
    found = set()
    for pid in pids:
        try:
            maps = (PROC / str(pid) / "maps").read_text(errors="replace")
        except OSError:
            continue  # it has ended
        for line in maps.splitlines():
            path = line.partition(SHARED)[2]
            if path and not path.endswith(" (deleted)"):
                found.add(SHARED + path)
    return found


def kill(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """Send a signal to every process that still is there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _stat(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _writes_to(pid: int, target: str) -> bool:
    for number in (1, 2):
        try:
            path = os.readlink(PROC / str(pid) / "fd" / str(number))
            if path.removesuffix(" (deleted)") == target:
                return True
        except OSError:
            continue
    return False
