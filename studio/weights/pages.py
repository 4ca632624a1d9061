"""Tensors as pages of a file: mapped instead of read.

The pages are the kernel's cached copy of the file. They count as the process's memory from the
first touch to the end of the map, so a pass that maps a range at a time needs a few megabytes.
"""

import mmap
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.weights.dtypes import ITEMSIZE, TORCH_NAMES
from studio.weights.header import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Flat:
    """The bytes of a tensor's elements in a row, and their dtype by its safetensors name."""

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


def map_flat(info: TensorInfo, start: int, stop: int) -> Flat:
    """The elements start … stop - 1 of a tensor, mapped as by `map_bytes`."""
    size = ITEMSIZE[info.dtype]
    part = replace(info, start=info.start + start * size, nbytes=(stop - start) * size)
    return Flat(info.dtype, map_bytes(part))


def map_bytes(info: TensorInfo) -> Bytes:
    """The bytes of a tensor, still in the file; no copy is made.

    Each map holds a file descriptor while it lives. Writing to it changes neither the file nor
    other maps. Raises StudioError if the file is gone or has shrunk.
    """
    if info.nbytes == 0:
        return np.empty(0, np.uint8)
    skipped = info.start % mmap.ALLOCATIONGRANULARITY
    try:
        with info.file.open("rb") as stream:
            # A private map is writable, which torch wants of a buffer, and shares the page cache.
            pages = mmap.mmap(
                stream.fileno(),
                skipped + info.nbytes,
                access=mmap.ACCESS_COPY,
                offset=info.start - skipped,
            )
    except (OSError, ValueError) as error:  # ValueError: beyond the end of the file
        raise StudioError(
            f"{info.file}: tensor {info.name!r} cannot be read ({error}); the file has changed "
            "since it was opened: start again"
        ) from error
    return np.frombuffer(pages, np.uint8, offset=skipped)


def map_tensor(info: TensorInfo) -> "Tensor":
    """The same as a torch tensor on the CPU, contiguous."""
    import torch

    dtype = getattr(torch, TORCH_NAMES[info.dtype])
    if info.nbytes == 0:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(map_bytes(info), dtype=dtype).view(info.shape)


def prefetch(info: TensorInfo) -> None:
    """Ask the kernel to read a tensor from disk into the page cache, in the background."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with info.file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), info.start, info.nbytes, os.POSIX_FADV_WILLNEED)
