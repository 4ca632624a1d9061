"""Measuring large sources in a process of its own: minutes of work that must not slow the page."""

import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.ui.background import Background, Job


class Measuring(Background):
    """Runs `preview` of the command line, which keeps what it measures; one waits for the other."""

    def __init__(self, data_dir: Path, command: Sequence[str]) -> None:
        super().__init__(command, data_dir, "{name} are being measured")
        self._turn = threading.Lock()

    def run(
        self, recipe: Recipe, on_progress: Callable[[float], None], is_wanted: Callable[[], bool]
    ) -> bool:
        """Measure the recipe's sources; `on_progress` gets the part that is done, 0 … 1.

        Stops, and returns False, once `is_wanted` says no. Raises StudioError with what the process
        says if it fails.
        """

        def look(now: Job) -> None:
            on_progress(now.done / max(now.total, 1))
            if not is_wanted():
                self.cancel()

        with self._turn, tempfile.TemporaryDirectory(prefix="studio-measure-") as folder:
            file = Path(folder) / "recipe.yaml"
            file.write_text(dump_recipe(recipe), encoding="utf-8")
            if not is_wanted():
                return False
            self.begin("sources", lambda: ("preview", str(file)))
            job = self.wait(look)
        is_cancelled = job.state == "cancelled" and not self._is_closed
        if job.state != "done" and not is_cancelled:
            raise StudioError(f"the sources could not be measured: {job.error or job.state}")
        return not is_cancelled
