"""The elements of tensors: in memory, or in a file until they are needed; the same to use."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.weights.dtypes import ITEMSIZE
from studio.weights.header import TensorInfo

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Flat:
    """Elements in memory: their bytes in a row, and their dtype by its safetensors name."""

    dtype: str
    data: Bytes

    @property
    def count(self) -> int:
        """The number of elements."""
        return len(self.data) // ITEMSIZE[self.dtype]

    def part(self, start: int, stop: int) -> "Flat":
        """The elements start … stop - 1, those of them that there are; not a copy."""
        size = ITEMSIZE[self.dtype]
        return Flat(self.dtype, self.data[start * size : stop * size])


@dataclass(frozen=True, slots=True)
class Span:
    """Elements of the tensor `name` in its open file: `count` of them, from byte `start` on.

    `dtype`: by its safetensors name.
    """

    file: FileIO
    name: str
    dtype: str
    start: int
    count: int

    @property
    def nbytes(self) -> int:
        """The size of the elements in bytes."""
        return self.count * ITEMSIZE[self.dtype]

    def part(self, start: int, stop: int) -> "Span":
        """The elements start … stop - 1, those of them that there are; nothing is read."""
        start, stop = min(start, self.count), min(stop, self.count)
        at = self.start + start * ITEMSIZE[self.dtype]
        return Span(self.file, self.name, self.dtype, at, max(stop - start, 0))

    @property
    def data(self) -> Bytes:
        """The bytes, read anew each time into memory of their own.

        Raises StudioError if the file cannot be read or has shrunk.
        """
        room = np.empty(self.nbytes, np.uint8)
        self.read_into(room)
        return room

    def read_into(self, room: Bytes) -> None:
        """Read the bytes into a room of their size; raises like `data`."""
        done = 0
        while done < len(room):
            try:
                count = os.preadv(self.file.fileno(), [room.data[done:]], self.start + done)
            except OSError as error:
                raise self.failure(error.strerror) from error
            if count == 0:
                raise self.failure(None)
            done += count

    def seems_cached(self) -> bool:
        """Whether the last element is in the page cache: then all are taken to be there.

        To look for every page would cost more than to guess wrong.
        """
        if not self.count:
            return True
        last = self.start + self.nbytes - 1
        try:
            return os.preadv(self.file.fileno(), [bytearray(1)], last, os.RWF_NOWAIT) == 1
        except OSError:  # it is not, or the file system cannot say
            return False

    def expect_jumps(self) -> None:
        """Tell the kernel not to read ahead in this file: nobody wants what follows."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def failure(self, reason: str | None) -> StudioError:
        """What is to be raised where the elements cannot be read; no reason: the file has ended."""
        return _failure(self.file.name, self.name, reason or "it has become shorter")


class OpenFiles:
    """The files of tensors, opened as they are needed, each for all its tensors, until `close`.

    For one thread; what it gives may be used by any.
    """

    def __init__(self) -> None:
        self._files: dict[Path, FileIO] = {}

    def span(self, info: TensorInfo) -> Span:
        """All elements of a tensor. Raises StudioError if its file is gone."""
        file = self._files.get(info.file)
        if file is None:
            try:
                file = self._files[info.file] = FileIO(info.file)
            except OSError as error:
                raise _failure(info.file, info.name, error.strerror) from error
        return Span(file, info.name, info.dtype, info.start, info.nbytes // ITEMSIZE[info.dtype])

    def close(self) -> None:
        """Close the files: the elements in them cannot be read any more."""
        for file in self._files.values():
            file.close()


@contextmanager
def span_of(info: TensorInfo) -> Iterator[Span]:
    """All elements of a tensor, its file open meanwhile. Raises StudioError if that is gone."""
    with closing(OpenFiles()) as files:
        yield files.span(info)


Elements = Flat | Span


def _failure(path: object, name: str, reason: str | None) -> StudioError:
    return StudioError(
        f"{path}: tensor {name!r} cannot be read ({reason}); the file has changed since it was "
        "opened: start again"
    )
