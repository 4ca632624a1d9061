"""A checkpoint on the Hub, opened without its weights: only what tells of them is fetched.

Every file is laid out in a temporary folder as a copy with a hole where the data are, and the copy
is opened like any other file. Of a safetensors file the header is fetched; of a .bin file the
pickle, the small records and the archive's directory, not the few bytes before each tensor: where
exactly its tensors begin is known when it is here.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from studio.errors import StudioError
from studio.weights import hub
from studio.weights.checkpoint import PICKLED, SAFETENSORS, Checkpoint, weight_files
from studio.weights.header import LENGTH_BYTES, MAX_HEADER
from studio.weights.pickled import read_all_but_data

_PART = 100_000  # bytes: the whole header of nearly every file
REQUESTS = 8  # under way at a time

ReadPart = Callable[[str, int, int], tuple[bytes, int] | None]
"""`hub.read_part` of one repository: the file, where to begin, how many bytes."""


def open_model(model: str) -> Checkpoint:
    """The model's checkpoint; what is not on this machine is counted in `missing`, not fetched.

    Raises StudioError as `Checkpoint.open` and `hub.small_files` do, and if the Hub has no weights
    of the model or does not give them in parts.
    """
    folder = hub.local_folder(model)
    if folder is not None:
        return Checkpoint.open(folder, model)
    folder = hub.small_files(model)
    for names in candidates(folder):
        if all((folder / name).is_file() for name in names):
            return Checkpoint.open(folder, model)
        if opened := _open_remote(model, folder, names):
            return opened
    raise no_weights(model)


def candidates(folder: Path) -> list[list[str]]:
    """Which files may hold the weights of a repository, by its small files; the first there do."""
    names = weight_files(folder)
    if names and (not names[0].endswith(".bin") or all((folder / n).is_file() for n in names)):
        return [names]
    return [[SAFETENSORS], names or [PICKLED]]


def no_weights(model: str) -> StudioError:
    """The error that the Hub has no weights of the model."""
    return StudioError(f"{model}: the Hub repository has no safetensors or .bin weights")


def _open_remote(model: str, folder: Path, names: Sequence[str]) -> Checkpoint | None:
    """The checkpoint with these files of weights; None if the Hub has none of them."""
    with TemporaryDirectory() as temporary:
        home = Path(temporary)
        for file in folder.glob("*.json"):
            (home / file.name).symlink_to(file.resolve())
        read = partial(hub.read_part, model, folder)
        try:
            with ThreadPoolExecutor(REQUESTS) as pool:
                missing = list(pool.map(lambda n: _lay_out(read, folder / n, home / n), names))
            if all(size is None for size in missing):
                return None
            opened = Checkpoint.open(home, model)
        except StudioError as error:
            raise StudioError(str(error).replace(temporary, model)) from error
    tensors = {n: replace(t, file=folder / t.file.name) for n, t in opened.tensors.items()}
    files = tuple(folder / file.name for file in opened.files)
    total = sum(size or 0 for size in missing)
    return Checkpoint(model, folder, opened.config, tensors, files, total)


def _lay_out(read: ReadPart, file: Path, copy: Path) -> int | None:
    """Make `copy` of a file of the Hub, to be `file`, with a hole where its data are.

    Returns the bytes that are still to be downloaded; None if the Hub has no such file.
    """
    if file.is_file():
        copy.symlink_to(file.resolve())
        return 0
    begun = read(file.name, 0, _PART)
    if begun is None:
        return None
    first, size = begun
    with copy.open("w+b") as stream:
        stream.write(first)
        stream.truncate(size)
        remote = _Remote(lambda begin, count: read(file.name, begin, count), stream, size)
        if copy.suffix == ".bin":
            read_all_but_data(remote, copy)
        else:
            end = LENGTH_BYTES + int.from_bytes(first[:LENGTH_BYTES], "little")
            remote.read(end if end <= min(MAX_HEADER, size) else 0)
    return size


class _Remote:
    """A file of the Hub to read and seek in; what is read is fetched once, into `copy`.

    The first `_PART` of its `size` bytes are there already.
    """

    def __init__(
        self, read: Callable[[int, int], tuple[bytes, int] | None], copy: BinaryIO, size: int
    ) -> None:
        self._read, self._copy, self._size = read, copy, size
        self._here = [(0, min(_PART, size))]
        self._at = 0

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place and tell which."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def read(self, count: int = -1) -> bytes:
        """The next `count` bytes, or all to the end; raises ValueError for more than a header."""
        end = self._size if count < 0 else min(self._at + count, self._size)
        if end - self._at > MAX_HEADER:
            raise ValueError(f"{end - self._at} bytes beside the tensors' data")
        if not any(begin <= self._at and end <= here for begin, here in self._here):
            self._fetch(self._at, end)
        self._copy.seek(self._at)
        data = self._copy.read(max(0, end - self._at))
        self._at += len(data)
        return data

    def _fetch(self, begin: int, end: int) -> None:
        """Lay the part into the copy; near the end of the file, all that is behind it as well."""
        begin = max(0, min(begin, self._size - _PART))
        end = min(max(end, begin + _PART), self._size)
        found = self._read(begin, end - begin)
        if found is None:
            raise StudioError(f"{self._copy.name}: gone from the Hub meanwhile; check again")
        self._copy.seek(begin)
        self._copy.write(found[0])
        self._here.append((begin, end))
