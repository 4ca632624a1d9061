"""Merge Studio's entry: settings, build the app, launch, and stop cleanly."""

import logging
import os
import signal
import sys
import threading

from studio.errors import StudioError
from studio.settings import read_settings


def main() -> int:
    """Run the studio until it is told to stop; returns the exit code."""
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
        from studio.ui.app import build  # after the settings: a mistake there is told at once

        studio = build(settings)
        studio.launch()
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Merge Studio is on http://{settings.host}:{settings.port}", flush=True)
    if not settings.is_open and settings.owner_token is None:
        print("Others may look and tune; merging is off: no STUDIO_OWNER_TOKEN", flush=True)
    stop.wait()
    print("stopping", flush=True)
    studio.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
