"""An engine's processes: started behind a tether, stopped without a trace, found again."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.durable import write_whole
from studio.errors import StudioError
from studio.serve.endpoint import Address
from studio.serve.processes.proc_table import belonging, is_alive, kill, shared_memory, started
from studio.serve.processes.vllm_command import ROOT, Place

RECORD, LOG = "engine.json", "log.txt"
STOP_SECONDS = 30.0  # longer than the tether's own patience
LONGEST_RUN = 60  # of the 107 bytes of a socket's path; vLLM's own have names of 36


def new_place(folder: Path, model_path: Path, model_id: str, *, open_port: bool) -> Place:
    """A folder, a key and a door that nobody else has; raises StudioError without a folder."""
    _make(folder)
    for each in folder.iterdir():  # of an earlier start; the note says whose the folder is
        if each.name != RECORD:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    key = secrets.token_urlsafe(32)
    is_short = len(os.fsencode(folder)) <= LONGEST_RUN
    run = folder if is_short else Path(tempfile.mkdtemp(prefix="engine-"))  # 0700 either way
    if open_port:
        return Place(folder, run, model_path, model_id, key, port=free_port())
    return Place(folder, run, model_path, model_id, key, socket=run / "door")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    except OSError as error:
        raise StudioError(
            f"{folder}: the engine's folder cannot be made ({error.strerror}); the studio must be "
            "able to write into its data folder"
        ) from error


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class EngineProcess:
    """The tether of an engine, and with it everything it started.

    `start` is the tether's start time, which with `pid` names it for ever. `popen` is there if
    this process started it, not if it was found.
    """

    place: Place
    pid: int
    start: int
    popen: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def spawn(
        cls,
        place: Place,
        command: Sequence[str],
        environ: Mapping[str, str],
        record: Mapping[str, Any],
        *,
        keep: bool,
    ) -> "EngineProcess":
        """Start the command; `record` is noted beside it for a later life of the studio."""
        log = place.folder / LOG
        tether = [sys.executable, "-m", "studio.serve.processes.tether", "--log", str(log)]
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [*tether, *(["--keep"] if keep else []), "--", *command],
                stdin=subprocess.DEVNULL if keep else subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                cwd=ROOT,
                start_new_session=True,
            )
        start = started(popen.pid)
        process = cls(place, popen.pid, -1 if start is None else start, popen)
        process.note(record)
        return process

    def note(self, record: Mapping[str, Any]) -> None:
        """Write down, for a later life of the studio, what runs here."""
        place = self.place
        data = {
            "pid": self.pid,
            "start": self.start,
            "owner": [os.getpid(), started(os.getpid())],
            "model_path": str(place.model_path),
            "model_id": place.model_id,
            "key": place.key,
            "run": str(place.run),
            "socket": None if place.socket is None else str(place.socket),
            "port": place.port,
            **record,
        }
        write_whole(place.folder / RECORD, json.dumps(data))

    @property
    def address(self) -> Address:
        """How to reach the engine."""
        port = "" if self.place.port is None else f":{self.place.port}"
        host = "127.0.0.1" if port else "engine"
        return Address(f"http://{host}{port}", self.place.key, self.place.socket)

    @property
    def log(self) -> Path:
        """What the engine said."""
        return self.place.folder / LOG

    def exit_code(self) -> int | None:
        """None while it runs; -1 if it ended and nobody knows how."""
        if self.popen is not None:
            return self.popen.poll()
        return None if is_alive(self.pid, self.start) else -1

    def ask_to_stop(self) -> None:
        """Have the tether end the engine; returns at once."""
        if self.exit_code() is None:
            kill([self.pid], signal.SIGTERM)

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """End everything that belongs to the engine, and return when nothing is left."""
        self.ask_to_stop()
        end = time.monotonic() + patience
        while self.exit_code() is None and time.monotonic() < end:
            time.sleep(0.05)
        self.sweep()

    def sweep(self) -> int:
        """Kill what still belongs to the engine; its shared memory and its socket go too.

        Returns how many processes there were.
        """
        count = sweep(self.log)
        if self.popen is not None:
            self.popen.wait()
            if self.popen.stdin is not None:
                self.popen.stdin.close()
        if self.place.socket is not None:
            self.place.socket.unlink(missing_ok=True)
        if self.place.run != self.place.folder:
            shutil.rmtree(self.place.run, ignore_errors=True)
        return count


def sweep(log: Path) -> int:
    """Kill every process that writes to the log, until there is none; how many there were."""
    seen: set[int] = set()
    shared: set[str] = set()
    while members := belonging(log):
        seen |= members
        shared |= shared_memory(members)
        kill(members)
        time.sleep(0.05)
    for path in shared:
        Path(path).unlink(missing_ok=True)
    return len(seen)


def claim(folder: Path, spec: Mapping[str, Any]) -> None:
    """Write down, before anything runs, that this process is about to start an engine here."""
    _make(folder)
    data = {"owner": [os.getpid(), started(os.getpid())], "spec": spec}
    write_whole(folder / RECORD, json.dumps(data))


def noted(folder: Path) -> dict[str, Any] | None:
    """The note in the folder of an engine, None if there is no usable one.

    `owner` and `spec` are in it always, "pid" and what `EngineProcess.note` adds once it runs.
    """
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return data if len(data["owner"]) == 2 and isinstance(data["spec"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def found(folder: Path) -> tuple[EngineProcess, dict[str, Any]]:
    """The engine that an earlier life of the studio noted in the folder, and the note.

    Raises StudioError if there is no usable note.
    """
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        door = data["socket"]
        place = Place(
            folder, Path(data["run"]), Path(data["model_path"]), data["model_id"], data["key"],
            None if door is None else Path(door), data["port"],
        )  # fmt: skip
        return EngineProcess(place, int(data["pid"]), int(data["start"])), data
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudioError(f"{folder}: no note of an engine ({error})") from error
