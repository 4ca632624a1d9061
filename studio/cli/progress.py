"""How the command line shows a merge under way: a bar for people, JSON lines for programs."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from studio.merge.run import Progress

BAR_CELLS = 28
SECONDS_BETWEEN = 0.2


class Display(Protocol):
    """What shows a merge: `update` often, one of `done` and `cancelled` at the end."""

    def download(self, done: int, total: int) -> None:
        """Show how many bytes of the sources have come."""

    def update(self, progress: "Progress") -> None:
        """Show how far the merge is."""

    def done(self, out: Path) -> None:
        """Show that the model is complete."""

    def cancelled(self) -> None:
        """Show that the merge was stopped."""


class Bar:
    """One line on a terminal, redrawn; on anything else a line every ten percent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._live = stream, stream.isatty()
        self._next, self._tenth, self._started = 0.0, -1, time.monotonic()

    def download(self, done: int, total: int) -> None:
        """Say how far the download is; the Hub's client shows bars of its own."""
        from studio.merge.sizes import size_text

        if not self._live and self._is_next_tenth(done, total):
            print(
                f"downloaded {size_text(done)} of {size_text(total)}",
                file=self._stream,
                flush=True,
            )

    def update(self, progress: "Progress") -> None:
        """Redraw the bar, at most five times a second."""
        if self._live and (time.monotonic() >= self._next or progress.done == progress.total):
            self._next = time.monotonic() + SECONDS_BETWEEN
            filled = BAR_CELLS * progress.done // progress.total
            bar = "█" * filled + "░" * (BAR_CELLS - filled)
            self._stream.write(f"\r{bar} {_numbers(progress)}\x1b[K")
            self._stream.flush()
        elif not self._live and self._is_next_tenth(progress.done, progress.total):
            print(_numbers(progress), file=self._stream, flush=True)

    def _is_next_tenth(self, done: int, total: int) -> bool:
        before, self._tenth = self._tenth, 10 * done // total
        return self._tenth != before

    def done(self, out: Path) -> None:
        """End the line, say how long it took, and print the folder on stdout."""
        if self._live:
            self._stream.write("\n")
        print(f"done in {time.monotonic() - self._started:.1f} s", file=self._stream)
        print(out)

    def cancelled(self) -> None:
        """End the line; the work done so far stays."""
        if self._live:
            self._stream.write("\n")
        print("cancelled; the same command resumes", file=self._stream)


class JsonLines:
    """One JSON object a line on stdout: progress five times a second, then how it ended."""

    def __init__(self) -> None:
        self._next, self._started = 0.0, time.monotonic()

    def download(self, done: int, total: int) -> None:
        """Print how far the download is."""
        emit({"event": "progress", "phase": "download", "done": done, "total": total})

    def update(self, progress: "Progress") -> None:
        """Print the progress, unless the last was printed just now."""
        if time.monotonic() >= self._next or progress.done == progress.total:
            self._next = time.monotonic() + SECONDS_BETWEEN
            emit(
                {
                    "event": "progress",
                    "phase": "merge",
                    "done": progress.done,
                    "total": progress.total,
                    "resumed": progress.resumed,
                    "tensor": progress.tensor,
                    "seconds": round(progress.seconds, 3),
                }
            )

    def done(self, out: Path) -> None:
        """Print where the model is."""
        seconds = round(time.monotonic() - self._started, 3)
        emit({"event": "done", "path": str(out), "seconds": seconds})

    def cancelled(self) -> None:
        """Print that the merge was cancelled."""
        emit({"event": "cancelled"})


def emit(data: dict[str, Any]) -> None:
    """One JSON object on a line of stdout, at once."""
    print(json.dumps(data), file=sys.stdout, flush=True)


def _numbers(progress: "Progress") -> str:
    from studio.merge.sizes import size_text  # the other commands do without that room

    fresh = progress.done - progress.resumed
    speed = fresh / progress.seconds if progress.seconds > 0 else 0.0
    left = f"{(progress.total - progress.done) / speed:.0f} s left" if speed else "starting"
    return (
        f"{100 * progress.done / progress.total:3.0f} %  {size_text(progress.done)} of "
        f"{size_text(progress.total)}  {size_text(speed)}/s  {left}"
    )
