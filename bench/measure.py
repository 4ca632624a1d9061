"""One process, measured: time until its data is safe, memory, bytes. Loads nothing heavy.

Linux lets a child begin with the high-water mark of its parent's memory, so the process that
measures must itself stay far below what it measures: models are made and compared in others.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

LOG_TAIL = 2000  # characters of a failed process's output that are shown


@dataclass(frozen=True)
class Run:
    """One measured process. Seconds and bytes; the /proc figures are None where it has none."""

    wall: float  # until the process has ended and sync has returned
    sync: float  # the sync's share of wall
    cpu: float
    peak_rss: int
    disk_read: int | None
    disk_write: int | None
    calls_read: int | None
    calls_write: int | None


def io_counters(pid: int) -> dict[str, int]:
    """/proc/PID/io of a process, children it has waited for included; empty where not readable.

    A process that has ended and was not yet waited for still has its final counters.
    """
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return {}
    return {key: int(value) for key, value in (line.split(":") for line in text.splitlines())}


def measure(command: list[str], cwd: Path, log: Path, env: dict[str, str] | None = None) -> Run:
    """Runs a command to its end and syncs the disks. BenchError if it fails, with its last output.

    `env` is added to the environment; output goes to the file `log`.
    """
    os.sync()  # what others left to write is not this process's debt
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            ended = time.perf_counter()
            counters = io_counters(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:  # interrupted
                process.kill()
                process.wait()
        os.sync()
        synced = time.perf_counter()
    if process.returncode != 0:
        tail = log.read_text(errors="replace")[-LOG_TAIL:].strip()
        raise BenchError(f"exit code {process.returncode} from: {' '.join(command)}\n{tail}")
    return Run(
        wall=synced - started,
        sync=synced - ended,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_rss=usage.ru_maxrss * 1024,
        disk_read=counters.get("read_bytes"),
        disk_write=counters.get("write_bytes"),
        calls_read=counters.get("rchar"),
        calls_write=counters.get("wchar"),
    )
