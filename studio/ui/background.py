"""The studio's own commands as background processes: one at a time, the same for every page."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

from studio.errors import StudioError

log = logging.getLogger(__name__)

STUDIO = (sys.executable, "-m", "studio")
SPEED_WINDOW = 5.0
PATIENCE = 10.0
LINES_KEPT = 30
State = Literal["idle", "running", "cancelling", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """A background process as it stands.

    `name`: what it works on. `done` of `total` are counted in units of its own, bytes or answers;
    `item` is the one it works on. `seconds` is its age, `speed` in units a second over the last
    seconds, None before there is one; `left` the seconds it will still take, None while that cannot
    be told. `talk`: the last lines it said beside the data; `told`: the data of its last event.
    """

    number: int = 0
    state: State = "idle"
    name: str = ""
    phase: str = "starting"
    done: int = 0
    total: int = 0
    item: str = ""
    seconds: float = 0.0
    speed: float | None = None
    left: float | None = None
    error: str = ""
    talk: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether its process runs."""
        return self.state in ("running", "cancelling")


class Background:
    """Starts, watches and stops one process of `command` at a time.

    `data_dir`: its data folder; `busy`: what is told to who would start a second one, with the
    first one's {name}.
    """

    def __init__(self, command: Sequence[str], data_dir: Path, busy: str) -> None:
        self._command, self._data_dir, self._busy = tuple(command), data_dir.absolute(), busy
        self._lock = threading.Lock()
        self._job = Job()
        self._process: subprocess.Popen[str] | None = None
        self._watcher: threading.Thread | None = None
        self._started = 0.0
        self._marks: deque[tuple[float, int]] = deque()
        self._talk: deque[str] = deque(maxlen=LINES_KEPT)
        self._is_closed = False

    def snapshot(self) -> Job:
        """The latest one as it stands now."""
        with self._lock:
            if self._job.is_live:
                age = time.monotonic() - self._started
                return replace(self._job, seconds=age, talk=tuple(self._talk))
            return self._job

    def begin(
        self,
        name: str,
        arguments: Callable[[], Sequence[str]],
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> Job:
        """Start the command; `arguments` is called once nothing else runs, and may refuse too.

        `environ`: variables for it alone. Raises StudioError while another one runs.
        """
        with self._lock:
            self._refuse_if_closed()
            if self._job.is_live:
                busy = self._busy.format(name=self._job.name)
                raise StudioError(f"{busy}; wait for it or cancel it")
            whole = (*self._command, *arguments())
            self._process = spawn(whole, self._data_dir, environ)
            self._started = time.monotonic()
            self._marks.clear()
            self._talk.clear()
            self._job = Job(self._job.number + 1, "running", name)
            self._watcher = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
            self._watcher.start()
            return self._job

    def wait(self, on_change: Callable[[Job], None], every: float = 0.2) -> Job:
        """Wait for its end, telling of it `every` so many seconds; returns how it ended."""
        assert self._watcher is not None, "begin it first"
        while self._watcher.is_alive():
            on_change(self.snapshot())
            self._watcher.join(every)
        return self.snapshot()

    def cancel(self) -> Job:
        """Ask it to stop; what it has made stays, and the same command goes on from there."""
        with self._lock:
            if self._job.state == "running":
                assert self._process is not None
                self._process.terminate()
                self._job = replace(self._job, state="cancelling", left=None)
            return self._job

    def close(self, patience: float = PATIENCE) -> None:
        """Stop it if it runs, kill it after `patience` seconds, and refuse new ones."""
        with self._lock:
            self._is_closed = True
        self.cancel()
        if self._process is None or self._watcher is None:
            return
        self._watcher.join(patience)
        if self._watcher.is_alive():
            with suppress(ProcessLookupError):  # it ended in this moment
                os.killpg(self._process.pid, signal.SIGKILL)
            self._watcher.join(patience)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise StudioError("the studio is stopping; start it again first")

    def _watch(self, process: "subprocess.Popen[str]") -> None:
        """Read what it says until it ends."""
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
                elif not event:
                    self._say(line)
            code = process.wait()
            listener.join(PATIENCE)
        self._finish(code, last)

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            self._say(line.rpartition("\r")[2])

    def _say(self, line: str) -> None:
        if text := line.strip():
            with self._lock:
                self._talk.append(text)

    def _progress(self, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        phase = str(event.get("phase", self._job.phase))
        done, total = int(event.get("done", 0)), int(event.get("total", 0))
        with self._lock:
            if phase != self._job.phase:
                self._marks.clear()
            self._marks.append((now, done))
            while len(self._marks) > 2 and self._marks[0][0] < now - SPEED_WINDOW:
                self._marks.popleft()
            first, before = self._marks[0]
            speed = (done - before) / (now - first) if now - first > 0.05 else self._job.speed
            left = max(0.0, (total - done) / speed) if speed and total else None
            self._job = replace(
                self._job,
                phase=phase,
                done=done,
                total=total,
                item=str(event.get("tensor") or ""),
                speed=speed,
                left=event.get("left", left) if self._job.state == "running" else None,
            )

    def _finish(self, code: int, last: Mapping[str, Any]) -> None:
        kind = last.get("event")
        with self._lock:
            age = time.monotonic() - self._started
            job = replace(self._job, seconds=age, talk=tuple(self._talk), speed=None, left=None)
            job = replace(job, told=last)
            if code == 0:
                seconds = float(last.get("seconds", age))
                job = replace(job, state="done", done=job.total, seconds=seconds)
            elif kind == "cancelled" or code == 130 or job.state == "cancelling":
                job = replace(job, state="cancelled")
            else:
                told = str(last.get("message")) if kind == "error" else _reason(code)
                job = replace(job, state="failed", error=told)
                log.warning("%s: %s\n%s", job.name, told, "\n".join(job.talk))
            self._job = job


def _reason(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the process was killed from outside; often that means memory ran out"
    if code < 0:
        return f"the process was ended by signal {-code}"
    return f"the process ended with code {code} and gave no reason; its last words are below"


def spawn(
    command: Sequence[str],
    data_dir: Path,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> "subprocess.Popen[str]":
    """A command of the studio's with this data folder; events as its output, and its talk, as text.

    It is tied to this process by the pipe that is its standard input: when this one dies, however
    it dies, the pipe closes and the other ends itself. `environ`: variables for it alone.
    """
    # A session of its own: Ctrl-C in the studio's terminal is the studio's to pass on. The
    # owner's secret stays here.
    whole = {key: value for key, value in os.environ.items() if key != "STUDIO_OWNER_TOKEN"}
    whole |= {"STUDIO_DATA": str(data_dir.absolute()), **environ}
    return subprocess.Popen(
        (*command, "--json", "--tethered"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=whole,
        start_new_session=True,
    )


def event_of(line: str) -> dict[str, Any]:
    """The event on a line of a process's output; empty if it is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
