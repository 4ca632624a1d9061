"""What the bench runs on: named in every report, because a timing belongs to a machine."""

import os
import platform
from pathlib import Path


def field(file: str, key: str) -> str | None:
    """The value of the first `key : value` line of a file in /proc."""
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def memory(key: str) -> int:
    """Bytes of MemTotal or MemAvailable."""
    value = field("/proc/meminfo", key)
    assert value is not None, key
    return int(value.split()[0]) * 1024


def file_system(folder: Path) -> tuple[str, str]:
    """(type, device) of the file system that holds a folder."""
    folder = folder.resolve()
    best = ("?", "?", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount, kind = line.split()[:3]
        if folder.is_relative_to(mount) and len(mount) >= len(best[2]):
            best = (kind, device, mount)
    return best[0], best[1]


def describe(folder: Path) -> dict[str, str | int | float]:
    """CPU, cores, memory, kernel, Python, file system of the folder used, load at the start."""
    kind, device = file_system(folder)
    return {
        "cpu": field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory("MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": kind,
        "device": device,
        "load": round(os.getloadavg()[0], 2),
    }
