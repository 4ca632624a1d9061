"""The answers of a trial, made by a background process: one trial at a time."""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from studio.errors import StudioError
from studio.ui.merge.jobs import PATIENCE, STUDIO, State, event_of, spawn

ENGINES = ("", "vllm", "embedded")
MOST_GPUS = 64


@dataclass(frozen=True, slots=True)
class Generation:
    """The making of a trial's answers as it stands.

    `done` of `total` answers are there; `seconds` is its age, `left` what it will still take, None
    while that cannot be told. `talk`: the last lines it said beside the data.
    """

    number: int = 0
    state: State = "idle"
    trial: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = None
    error: str = ""
    talk: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether its process runs."""
        return self.state in ("running", "cancelling")


class Generations:
    """Starts, watches and stops `python -m studio generate`, as MergeJobs does with merges."""

    def __init__(self, command: Sequence[str] = STUDIO) -> None:
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._now = Generation()
        self._process: subprocess.Popen[str] | None = None
        self._watcher: threading.Thread | None = None
        self._started = 0.0
        self._talk: deque[str] = deque(maxlen=30)
        self._is_closed = False

    def snapshot(self) -> Generation:
        """The latest one as it stands now."""
        with self._lock:
            if self._now.is_live:
                age = time.monotonic() - self._started
                return replace(self._now, seconds=age, talk=tuple(self._talk))
            return self._now

    def start(self, folder: Path, engine: str = "", gpus: int = 1) -> Generation:
        """Make the answers that the trial in `folder` lacks.

        `engine`: one of ENGINES, "" for vLLM where it is installed; `gpus`: how many of them each
        model is split over. Raises StudioError if one runs.
        """
        if engine not in ENGINES or type(gpus) is not int or not 1 <= gpus <= MOST_GPUS:
            raise StudioError(f"choose one of the engines, and 1 to {MOST_GPUS} GPUs for a model")
        with self._lock:
            if self._is_closed:
                raise StudioError("the studio is stopping; start it again to generate")
            if self._now.is_live:
                raise StudioError(
                    f'answers are being made for "{self._now.trial}"; wait for it or cancel it'
                )
            arguments = ["generate", str(folder), "--json", "--tethered"]
            arguments += ["--engine", engine] if engine else []
            arguments += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
            self._process = spawn((*self._command, *arguments), subprocess.PIPE)
            self._started = time.monotonic()
            self._talk.clear()
            self._now = Generation(self._now.number + 1, "running", folder.name)
            self._watcher = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
            self._watcher.start()
            return self._now

    def cancel(self) -> Generation:
        """Ask it to stop; the answers that are there stay, and the next start goes on."""
        with self._lock:
            if self._now.state == "running":
                assert self._process is not None
                self._process.terminate()
                self._now = replace(self._now, state="cancelling")
            return self._now

    def close(self, patience: float = PATIENCE) -> None:
        """Stop the running one, if any, and refuse new ones; kill it after `patience` seconds."""
        with self._lock:
            self._is_closed = True
        self.cancel()
        if self._process is None or self._watcher is None:
            return
        self._watcher.join(patience)
        if self._watcher.is_alive():
            os.killpg(self._process.pid, signal.SIGKILL)
            self._watcher.join(patience)

    def _watch(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        listener = threading.Thread(target=self._listen, args=(process.stderr,), daemon=True)
        last: Mapping[str, Any] = {}
        with process:
            listener.start()
            for line in process.stdout:
                event = event_of(line)
                if event.get("event") == "progress":
                    self._progress(event)
                elif "event" in event:
                    last = event
                elif line.strip():
                    self._talk.append(line.rstrip())
            code = process.wait()
            listener.join(PATIENCE)
        self._finish(code, last)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            if text := line.rpartition("\r")[2].strip():
                self._talk.append(text)

    def _progress(self, event: Mapping[str, Any]) -> None:
        left = event.get("left", event.get("seconds_left"))
        with self._lock:
            self._now = replace(
                self._now,
                done=int(event.get("done", 0)),
                total=int(event.get("total", 0)),
                left=float(left) if isinstance(left, int | float) else None,
            )

    def _finish(self, code: int, last: Mapping[str, Any]) -> None:
        kind = last.get("event")
        with self._lock:
            age = time.monotonic() - self._started
            now = replace(self._now, seconds=age, talk=tuple(self._talk), left=None)
            if code == 0:
                now = replace(now, state="done", done=now.total)
            elif kind == "cancelled" or code == 130 or now.state == "cancelling":
                now = replace(now, state="cancelled")
            else:
                told = last.get("message") if kind == "error" else self._reason(code)
                now = replace(now, state="failed", error=str(told))
            self._now = now

    def _reason(self, code: int) -> str:
        if code == -signal.SIGKILL:
            return "the process was killed from outside; often that means memory ran out"
        return f"the process ended with code {code} and gave no reason; its last words are below"
