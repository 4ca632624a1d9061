"""Tensors as pages of a file: mapped instead of read, fetched ahead and given back.

The pages are the kernel's cached copy of the file. They count as the process's memory only from the
first touch to `release`, so a pass over a checkpoint of any size needs a few megabytes.
"""

import ctypes
import mmap
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

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

    def bytes_of(self, start: int, stop: int) -> Bytes:
        """The bytes of the elements start … stop - 1."""
        size = ITEMSIZE[self.dtype]
        return self.data[start * size : stop * size]


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


def prefetch(data: Bytes) -> None:
    """Ask the kernel to read mapped pages from disk in the background."""
    _advise(data, getattr(mmap, "MADV_WILLNEED", None), outward=True)


def release(data: Bytes, *, outward: bool = False) -> None:
    """Take mapped pages out of the process's memory; touching them maps them again.

    Of pages shared with a neighbour only `outward` releases the whole. Only for (slices of) what
    `map_bytes` returned and nobody wrote to: other memory would lose its contents.
    """
    _advise(data, getattr(mmap, "MADV_DONTNEED", None), outward=outward)


def _advise(data: Bytes, advice: int | None, *, outward: bool) -> None:
    """madvise on the pages that hold the bytes: those wholly inside, or all they touch."""
    madvise = _madvise()
    if madvise is None or advice is None or len(data) == 0:
        return
    begin = data.ctypes.data
    end = begin + len(data)
    if outward:
        begin, end = _page_floor(begin), _page_floor(end + mmap.PAGESIZE - 1)
    else:
        begin, end = _page_floor(begin + mmap.PAGESIZE - 1), _page_floor(end)
    if begin < end and madvise(begin, end - begin, advice) != 0:
        raise OSError(ctypes.get_errno(), f"madvise({begin:#x}, {end - begin}, {advice}) failed")


def _page_floor(address: int) -> int:
    return address - address % mmap.PAGESIZE


@cache
def _madvise() -> Any:
    """The C library's function, or None where there is none (Windows)."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
