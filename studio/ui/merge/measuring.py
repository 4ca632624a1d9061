"""Measuring large sources in a process of its own: minutes of work that must not slow the page."""

import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.ui.merge.jobs import event_of, spawn


class Measuring:
    """Runs `preview` of the command line, which keeps what it measures; one process at a time."""

    def __init__(self, data_dir: Path, command: Sequence[str]) -> None:
        self._data_dir, self._command = data_dir, tuple(command)
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False

    def run(self, recipe: Recipe, on_progress: Callable[[float], None]) -> None:
        """Measure the recipe's sources; `on_progress` gets the part that is done, 0 … 1.

        Raises StudioError with what the process says if it fails.
        """
        with self._turn, tempfile.TemporaryDirectory(prefix="studio-measure-") as folder:
            file = Path(folder) / "recipe.yaml"
            file.write_text(dump_recipe(recipe), encoding="utf-8")
            with self._lock:
                if self._is_closed:
                    raise StudioError("the studio is stopping; start it again to measure")
                arguments = ("preview", str(file), "--json", "--tethered")
                process = self._process = spawn(
                    (*self._command, *arguments), subprocess.PIPE, self._data_dir, stderr=None
                )
            with process:
                last = _listen(process, on_progress)
            if process.returncode:
                reason = last.get("error") or f"it ended with code {process.returncode}"
                raise StudioError(f"the sources could not be measured: {reason}")

    def close(self) -> None:
        """End the process, if any, and refuse new ones."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.terminate()


def _listen(
    process: "subprocess.Popen[str]", on_progress: Callable[[float], None]
) -> dict[str, Any]:
    """Read what the process says to its end; returns the last thing."""
    assert process.stdout is not None
    last: dict[str, Any] = {}
    for line in process.stdout:
        last = event_of(line) or last
        if last.get("event") == "progress" and last.get("total"):
            on_progress(last["done"] / last["total"])
    return last
