"""Stands between the studio and an engine's processes, and sees that none outlives its time.

    python -m studio.serve.processes.tether --log FILE [--keep] [--patience SECONDS] -- COMMAND…

It starts the command in a session of its own. It ends everything that belongs to the engine when
it gets SIGTERM, when standard input closes (whoever held the other end is gone, however it died;
not with --keep), or when the command itself ends. First politely, then by SIGKILL; shared memory
that killed processes leave behind is removed. Its exit code is the command's, 128 + n for signal n.
"""

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from studio.serve.processes.proc_table import belonging, kill, shared_memory

PATIENCE = 10.0  # vLLM takes up to six seconds while it starts, one when it is up
WIND_UP = 6.0  # an engine whose part was killed ends itself within five seconds
LOOK_SECONDS = 2.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    """Run the command until it ends or is to end."""
    parser = argparse.ArgumentParser(prog="tether")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--patience", type=float, default=PATIENCE)
    parser.add_argument("command", nargs="+")
    parsed = parser.parse_args()
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: asked.append(number))
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    engine = subprocess.Popen(
        parsed.command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
    )
    shared: set[str] = set()
    try:
        _wait(engine, parsed, asked, shared)
        polite = engine.poll() is None
        _end(
            engine, parsed.log, parsed.patience if polite else min(parsed.patience, WIND_UP), shared
        )
    finally:
        kill(belonging(parsed.log, engine.pid))
        for path in shared:
            Path(path).unlink(missing_ok=True)
    code = engine.wait()
    how = "was ended" if asked or polite else f"ended by itself with code {code}"
    print(f"tether: the engine {how}", flush=True)
    return code if code >= 0 else 128 - code


def _wait(
    engine: "subprocess.Popen[bytes]",
    parsed: argparse.Namespace,
    asked: list[int],
    shared: set[str],
) -> None:
    """Return when the engine ended or has to."""
    looked = 0.0
    while engine.poll() is None and not asked:
        if parsed.keep:
            time.sleep(0.25)
        elif select.select([sys.stdin], [], [], 0.25)[0] and not os.read(0, 4096):
            return
        if time.monotonic() - looked > LOOK_SECONDS:
            shared |= shared_memory(belonging(parsed.log, engine.pid))
            looked = time.monotonic()


def _end(engine: "subprocess.Popen[bytes]", log: Path, patience: float, shared: set[str]) -> None:
    """Let the engine's processes end; kill those that do not.

    By SIGINT: vLLM's server hangs when it gets SIGTERM while it starts or changes weights.
    """
    members = belonging(log, engine.pid)
    shared |= shared_memory(members)
    if engine.poll() is None:
        kill(members, signal.SIGINT)
    end = time.monotonic() + patience
    while members and time.monotonic() < end:
        time.sleep(0.1)
        engine.poll()
        members = belonging(log, engine.pid)
    while members:
        kill(members)
        time.sleep(0.05)
        engine.poll()
        _reap(engine.pid)
        members = belonging(log, engine.pid)


def _reap(engine: int) -> None:
    """Collect orphans that were given to this process; the engine itself is Popen's."""
    try:
        for entry in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            if int(entry) != engine:
                os.waitpid(int(entry), os.WNOHANG)
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main())
