"""The elements of tensors: in memory, or in a file until they are needed; the same to use."""

import os
from dataclasses import dataclass

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


class _OpenFile:
    """The file of a tensor, open for reading: until `close`, or until nothing refers to it.

    Not a bare descriptor with a `__del__`: a Ctrl-C that comes while that runs would be lost.
    """

    def __init__(self, info: TensorInfo) -> None:
        self.info = info
        self._stream = info.file.open("rb", buffering=0)
        self.descriptor = self._stream.fileno()

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, slots=True)
class Span:
    """Elements of a tensor in its open file: `count` of them, from byte `start` of the file on.

    `dtype`: by its safetensors name.
    """

    file: _OpenFile
    dtype: str
    start: int
    count: int

    @classmethod
    def of(cls, info: TensorInfo) -> "Span":
        """All elements of a tensor. Raises StudioError if its file is gone."""
        try:
            file = _OpenFile(info)
        except OSError as error:
            raise _failure(info, error.strerror) from error
        return cls(file, info.dtype, info.start, info.nbytes // ITEMSIZE[info.dtype])

    def close(self) -> None:
        """Close the file, for all parts of these elements too."""
        self.file.close()

    def part(self, start: int, stop: int) -> "Span":
        """The elements start … stop - 1, those of them that there are; nothing is read."""
        start, stop = min(start, self.count), min(stop, self.count)
        at = self.start + start * ITEMSIZE[self.dtype]
        return Span(self.file, self.dtype, at, max(stop - start, 0))

    @property
    def data(self) -> Bytes:
        """The bytes, read anew each time into memory of their own.

        Raises StudioError if the file cannot be read or has shrunk.
        """
        room = np.empty(self.count * ITEMSIZE[self.dtype], np.uint8)
        self.read_into(room)
        return room

    def read_into(self, room: Bytes) -> None:
        """Read the bytes into a room of their size; raises like `data`."""
        done = 0
        while done < len(room):
            try:
                count = os.preadv(self.file.descriptor, [room.data[done:]], self.start + done)
            except OSError as error:
                raise self.failure(error.strerror) from error
            if count == 0:
                raise self.failure(None)
            done += count

    def prefetch(self) -> None:
        """Ask the kernel to read the elements from disk, in the background.

        If the last of them is in the page cache, all are taken to be there: to look for every page
        costs more than to guess wrong.
        """
        if self.count and hasattr(os, "posix_fadvise") and not self._ends_in_cache():
            size = self.count * ITEMSIZE[self.dtype]
            os.posix_fadvise(self.file.descriptor, self.start, size, os.POSIX_FADV_WILLNEED)

    def _ends_in_cache(self) -> bool:
        last = self.start + self.count * ITEMSIZE[self.dtype] - 1
        try:
            return os.preadv(self.file.descriptor, [bytearray(1)], last, os.RWF_NOWAIT) == 1
        except OSError:  # it is not, or the file system cannot say
            return False

    def expect_jumps(self) -> None:
        """Tell the kernel not to read ahead in this file: nobody wants what follows."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def failure(self, reason: str | None) -> StudioError:
        """What is to be raised where the elements cannot be read; no reason: the file has ended."""
        return _failure(self.file.info, reason or "it has become shorter")


Elements = Flat | Span


def _failure(info: TensorInfo, reason: str | None) -> StudioError:
    return StudioError(
        f"{info.file}: tensor {info.name!r} cannot be read ({reason}); the file has changed since "
        "it was opened: start again"
    )
