"""Merges as background processes: one at a time, the same for every page that looks."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from studio.durable import write_whole
from studio.errors import StudioError

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")
SPEED_WINDOW = 5.0
PATIENCE = 10.0
LONGEST_CHECK = 120
STUDIO = (sys.executable, "-m", "studio")
State = Literal["idle", "running", "cancelling", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """A merge as it stands.

    `done` and `total` count bytes; `seconds` is its age, `speed` in bytes a second over the last
    seconds, None before there is one. `talk`: the last lines it said beside the data.
    """

    number: int = 0
    state: State = "idle"
    name: str = ""
    path: str = ""
    recipe: str = ""
    phase: str = "starting"
    done: int = 0
    total: int = 0
    tensor: str = ""
    seconds: float = 0.0
    speed: float | None = None
    error: str = ""
    talk: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether its process runs."""
        return self.state in ("running", "cancelling")

    @property
    def seconds_left(self) -> float | None:
        """Time until the end at the present speed; None while it cannot be told."""
        if self.state != "running" or not self.speed or not self.total:
            return None
        return max(0.0, (self.total - self.done) / self.speed)


def checked_name(name: object) -> str:
    """`name` if it can be the name of a result's folder; raises StudioError otherwise."""
    if isinstance(name, str) and NAME.fullmatch(name) and not name.endswith((".partial", ".")):
        return name
    raise StudioError(
        f"{str(name)[:90]!r} cannot name a result: use 1 to 80 letters, digits, dots, dashes "
        "and underscores, beginning with none of the dots"
    )


class MergeJobs:
    """Starts, watches and stops merges; results go to `folder` in the data folder.

    Each merge is a process of its own session, tied to this one by a pipe: when this process
    dies, however it dies, the pipe closes and the merge ends itself.
    """

    def __init__(self, folder: Path, command: Sequence[str] = STUDIO) -> None:
        self.folder = folder.absolute()
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._job = Job()
        self._process: subprocess.Popen[str] | None = None
        self._watcher: threading.Thread | None = None
        self._started = 0.0
        self._marks: deque[tuple[float, int]] = deque()
        self._talk: deque[str] = deque(maxlen=30)
        self._is_closed = False

    def snapshot(self) -> Job:
        """The latest merge as it stands now."""
        with self._lock:
            if self._job.is_live:
                age = time.monotonic() - self._started
                return replace(self._job, seconds=age, talk=tuple(self._talk))
            return self._job

    def start(self, recipe: str, name: object) -> Job:
        """Start merging the YAML text `recipe` into the result `name`.

        Raises StudioError if a merge runs, or if the name is not usable or taken.
        """
        slug = checked_name(name)
        with self._lock:
            if self._is_closed:
                raise StudioError("the studio is stopping; start it again to merge")
            if self._job.is_live:
                raise StudioError(f'"{self._job.name}" is being merged; wait for it or cancel it')
            path = self.folder / slug
            if path.exists():
                raise StudioError(f'a result named "{slug}" exists; choose another name')
            file = self._write(f"{slug}.yaml", recipe)
            arguments = ("merge", str(file), "--out", str(path), "--json", "--tethered")
            self._process = spawn((*self._command, *arguments), subprocess.PIPE, self.folder.parent)
            self._started = time.monotonic()
            self._marks.clear()
            self._talk.clear()
            self._job = Job(
                number=self._job.number + 1, state="running", name=slug, path=str(path),
                recipe=recipe,
            )  # fmt: skip
            self._watcher = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
            self._watcher.start()
            return self._job

    def check(self, recipe: str, name: object) -> dict[str, Any]:
        """What the preflight check says of merging `recipe` into `name`, as the command tells it.

        Raises StudioError with the problems it found.
        """
        path = self.folder / checked_name(name)
        file = self._write(f"check-{threading.get_ident()}.yaml", recipe)
        arguments = ("check", str(file), "--out", str(path), "--json")
        try:
            process = spawn((*self._command, *arguments), subprocess.DEVNULL, self.folder.parent)
            try:
                out, talk = process.communicate(timeout=LONGEST_CHECK)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                raise StudioError(
                    f"the check was stopped after {LONGEST_CHECK} seconds; sources that are not on "
                    "this machine take long to fetch, and the merge itself fetches them too"
                ) from None
        finally:
            file.unlink(missing_ok=True)
        found = event_of(out.strip().rpartition("\n")[2])
        if process.returncode == 0 and found:
            return found
        reason = found.get("error") or talk.strip() or f"the check ended with {process.returncode}"
        text = str(reason).replace(str(file), "recipe").replace(file.name, "recipe")
        data = {key: found[key] for key in found.keys() - {"event", "message", "error"}}
        raise StudioError(text, data)

    def _write(self, name: str, recipe: str) -> Path:
        """Keep a recipe for its process; no name of a result begins with a dot."""
        file = self.folder / ".recipes" / name
        write_whole(file, recipe)
        return file

    def cancel(self) -> Job:
        """Ask the running merge to stop; its partial work stays and can be taken up again."""
        with self._lock:
            if self._job.state == "running":
                assert self._process is not None
                self._process.terminate()
                self._job = replace(self._job, state="cancelling")
            return self._job

    def close(self, patience: float = PATIENCE) -> None:
        """Stop the running merge, if any, and refuse new ones.

        A merge that has not ended after `patience` seconds is killed.
        """
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
        """Read what the merge says until it ends."""
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
            text = line.rpartition("\r")[2].strip()
            if text:
                self._talk.append(text)

    def _progress(self, event: Mapping[str, Any]) -> None:
        now = time.monotonic()
        done = int(event.get("done", 0))
        with self._lock:
            if event.get("phase", "merge") != self._job.phase:
                self._marks.clear()
            self._marks.append((now, done))
            while len(self._marks) > 2 and self._marks[0][0] < now - SPEED_WINDOW:
                self._marks.popleft()
            (first, before), (span) = self._marks[0], now - self._marks[0][0]
            self._job = replace(
                self._job,
                phase=str(event.get("phase", "merge")),
                done=done,
                total=int(event.get("total", 0)),
                tensor=str(event.get("tensor") or ""),
                speed=(done - before) / span if span > 0.05 and now > first else self._job.speed,
            )

    def _finish(self, code: int, last: Mapping[str, Any]) -> None:
        kind = last.get("event")
        with self._lock:
            age = time.monotonic() - self._started
            job = replace(self._job, seconds=age, talk=tuple(self._talk), speed=None)
            if code == 0 and Path(job.path).is_dir():
                seconds = float(last.get("seconds", age))
                job = replace(job, state="done", done=job.total, seconds=seconds)
            elif kind == "cancelled" or code == 130 or job.state == "cancelling":
                job = replace(job, state="cancelled")
            else:
                job = replace(job, state="failed", error=self._reason(code, last))
            self._job = job

    def _reason(self, code: int, last: Mapping[str, Any]) -> str:
        if last.get("event") == "error":
            return str(last.get("message"))
        if code == -signal.SIGKILL:
            return "the merge was killed from outside; often that means memory ran out"
        if code < 0:
            return f"the merge was ended by signal {-code}"
        return f"the merge ended with code {code} and gave no reason; its last words are below"


def spawn(
    command: Sequence[str],
    stdin: int,
    data_dir: Path | None = None,
    stderr: int | None = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """A process of the studio's, its output and its talk as text.

    `data_dir`: another data folder than the environment's; None as `stderr`: talk goes to the log.
    """
    # A session of its own: Ctrl-C in the studio's terminal is the studio's to pass on. The
    # owner's secret stays here.
    environ = {key: value for key, value in os.environ.items() if key != "STUDIO_OWNER_TOKEN"}
    if data_dir is not None:
        environ["STUDIO_DATA"] = str(data_dir.absolute())
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
        env=environ,
        start_new_session=True,
    )


def event_of(line: str) -> dict[str, Any]:
    """The event on a line of a process's output; empty if it is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
