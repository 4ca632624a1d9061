"""Merges in the background, and the preflight check in a process of its own."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from studio.durable import write_whole
from studio.errors import StudioError
from studio.ui.background import PATIENCE, STUDIO, Background, Job, event_of, spawn

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")
LONGEST_CHECK = 120


def checked_name(name: object) -> str:
    """`name` if it can be the name of a result's folder; raises StudioError otherwise."""
    if isinstance(name, str) and NAME.fullmatch(name) and not name.endswith((".partial", ".")):
        return name
    raise StudioError(
        f"{str(name)[:90]!r} cannot name a result: use 1 to 80 letters, digits, dots, dashes "
        "and underscores, beginning with none of the dots"
    )


class MergeJobs(Background):
    """Merges, one at a time; results go to `folder` in the data folder."""

    def __init__(self, folder: Path, command: Sequence[str] = STUDIO) -> None:
        super().__init__(command, folder.parent, '"{name}" is being merged')
        self.folder = folder.absolute()
        self._checks: set[subprocess.Popen[str]] = set()

    def start(self, recipe: str, name: object) -> Job:
        """Start merging the YAML text `recipe` into the result `name`.

        Raises StudioError if a merge runs, or if the name is not usable or taken.
        """
        slug = checked_name(name)
        path = self.folder / slug

        def arguments() -> tuple[str, ...]:
            if path.exists():
                raise StudioError(f'a result named "{slug}" exists; choose another name')
            return ("merge", str(self._write(f"{slug}.yaml", recipe)), "--out", str(path))

        return self.begin(slug, arguments)

    def check(self, recipe: str, name: object) -> dict[str, Any]:
        """What the preflight check says of merging `recipe` into `name`, as the command tells it.

        Raises StudioError with the problems it found.
        """
        path = self.folder / checked_name(name)
        file = self._write(f"check-{threading.get_ident()}.yaml", recipe)
        arguments = ("check", str(file), "--out", str(path))
        try:
            with self._checking(arguments) as process:
                out, talk = _answer(process)
        finally:
            file.unlink(missing_ok=True)
        found = event_of(out.strip().rpartition("\n")[2])
        if process.returncode == 0 and found:
            return found
        reason = found.get("error") or talk.strip() or f"the check ended with {process.returncode}"
        text = str(reason).replace(str(file), "recipe").replace(file.name, "recipe")
        data = {key: found[key] for key in found.keys() - {"event", "message", "error"}}
        raise StudioError(text, data)

    def close(self, patience: float = PATIENCE) -> None:
        """Stop the merge as `Background.close` does, and kill the checks: they make nothing."""
        with self._lock:
            self._is_closed = True
            for process in self._checks:
                _kill(process)
        super().close(patience)

    @contextmanager
    def _checking(self, arguments: Sequence[str]) -> "Iterator[subprocess.Popen[str]]":
        """A check's process, which a `close` meanwhile kills."""
        with self._lock:
            self._refuse_if_closed()
            process = spawn((*self._command, *arguments), self._data_dir)
            self._checks.add(process)
        tether, process.stdin = process.stdin, None  # `communicate` would close it
        assert tether is not None
        try:
            yield process
        finally:
            tether.close()
            with self._lock:
                self._checks.remove(process)
        self._refuse_if_closed()

    def _write(self, name: str, recipe: str) -> Path:
        """Keep a recipe for its process; no name of a result begins with a dot."""
        file = self.folder / ".recipes" / name
        write_whole(file, recipe)
        return file


def _answer(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What a check says and what it says beside; raises StudioError if it takes too long."""
    try:
        return process.communicate(timeout=LONGEST_CHECK)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.communicate()
        raise StudioError(
            f"the check was stopped after {LONGEST_CHECK} seconds; if the Hub is slow to "
            "answer, try again: what has come is kept, and the merge checks the same"
        ) from None


def _kill(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):  # it ended in this moment
        os.killpg(process.pid, signal.SIGKILL)
