"""A whole model brought to this machine: its files of weights, where there is room for them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from studio.errors import StudioError
from studio.weights import hub
from studio.weights.remote import REQUESTS, candidates, no_weights
from studio.weights.room import download_need, shortages

OnBytes = Callable[[int, int], None]
"""Told of a download now and then: bytes done, and how many there are to be."""

_SECONDS_BETWEEN = 0.5
_under_way = threading.Lock()


def unheard(done: int, total: int) -> None:
    """Tells nobody."""


def download(model: str, on_bytes: OnBytes = unheard) -> Path:
    """A folder with the whole model: what is not on this machine of the files that hold its weights
    is downloaded, one model at a time.

    `on_bytes` is called now and then, with 0 of 0 while another model has its turn; what it raises
    ends the download. Raises StudioError if the disk lacks the room, before any weights are
    fetched, and if the Hub does not give them.
    """
    folder = hub.local_folder(model)
    if folder is not None:
        return folder
    folder = hub.small_files(model)
    if not all((folder / name).is_file() for name in candidates(folder)[0]):
        with _turn(lambda: on_bytes(0, 0)):
            _bring(model, folder, on_bytes)
    return folder


def _bring(model: str, folder: Path, on_bytes: OnBytes) -> None:
    missing = _missing(model, folder)
    done, total = 0, sum(missing.values())
    if problems := shortages([download_need([model], folder, total)]):
        raise StudioError(problems[0])

    def count(more: int) -> None:
        nonlocal done
        done = min(done + more, total)
        on_bytes(done, total)

    hub.fetch(model, list(missing), count)


@contextmanager
def _turn(on_wait: Callable[[], None]) -> Iterator[None]:
    """Downloads wait for each other: two could fill the disk that has room for either, and who
    ends one with the Hub's client ends all."""
    while not _under_way.acquire(timeout=_SECONDS_BETWEEN):
        on_wait()
    try:
        yield
    finally:
        _under_way.release()


def _missing(model: str, folder: Path) -> dict[str, int]:
    """The model's files of weights, and how many bytes of each are still to be downloaded."""
    for names in candidates(folder):
        with ThreadPoolExecutor(REQUESTS) as pool:
            sizes = list(pool.map(partial(_bytes_missing, model, folder), names))
        if any(size is not None for size in sizes):
            return {name: size or 0 for name, size in zip(names, sizes, strict=True)}
    raise no_weights(model)


def _bytes_missing(model: str, folder: Path, name: str) -> int | None:
    if (folder / name).is_file():
        return 0
    found = hub.read_part(model, folder, name, 0, 1)
    return found and found[1]
