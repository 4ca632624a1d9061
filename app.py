"""Merge Studio's entry: settings, build the app, launch, and stop cleanly."""

import gc
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.settings import Settings, read_settings

if TYPE_CHECKING:
    from studio.ui.app import Studio
    from studio.ui.blind.rating_page import RatingStudio


def main() -> int:
    """Run the studio until it is told to stop; returns the exit code."""
    gc.set_threshold(50_000)  # imports make much that stays: looking through it took half a second
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = read_settings(os.environ)
        studio = _built(settings)
        studio.launch()
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Merge Studio is on http://{settings.host}:{settings.port}", flush=True)
    if settings.rate is None and not settings.is_open and settings.owner_token is None:
        print("Others may look and tune; merging is off: no STUDIO_OWNER_TOKEN", flush=True)
    stop.wait()
    print("stopping", flush=True)
    studio.close()
    return 0


def _built(settings: Settings) -> "RatingStudio | Studio":
    """The whole studio, or the page for rating; imported late: a mistake in the settings is told
    at once, and a machine that only rates has not what the studio needs."""
    if settings.rate is not None:
        from studio.ui.blind.rating_page import build_rating

        return build_rating(settings, settings.rate)
    from studio.ui.app import build

    return build(settings)


if __name__ == "__main__":
    sys.exit(main())
