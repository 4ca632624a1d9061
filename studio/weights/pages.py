"""Tensors as pages of a file: mapped instead of read, fetched ahead and given back.

The pages are the kernel's cached copy of the file. They count as the process's memory only from the
first touch to `release`, so a pass over a checkpoint of any size needs a few megabytes.
"""

import ctypes
import mmap
from functools import cache
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.weights.dtypes import TORCH_NAMES
from studio.weights.header import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


def map_tensor(info: TensorInfo) -> "Tensor":
    """The tensor on the CPU, contiguous, its bytes still in the file; no copy is made.

    Each tensor holds a map and a file descriptor of its own while it lives. Writing to it changes
    neither the file nor other tensors. Raises StudioError if the file is gone or has shrunk.
    """
    import torch

    dtype = getattr(torch, TORCH_NAMES[info.dtype])
    if info.nbytes == 0:
        return torch.empty(info.shape, dtype=dtype)
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
    count = info.nbytes // dtype.itemsize
    return torch.frombuffer(pages, dtype=dtype, count=count, offset=skipped).view(info.shape)


def prefetch(tensor: "Tensor") -> None:
    """Ask the kernel to read a mapped tensor's pages from disk in the background."""
    _advise(tensor, getattr(mmap, "MADV_WILLNEED", None), outward=True)


def release(tensor: "Tensor", *, outward: bool = False) -> None:
    """Take a mapped tensor's pages out of the process's memory; touching them maps them again.

    Of pages shared with a neighbour only `outward` releases the whole. Only for (slices of) what
    `map_tensor` returned and nobody wrote to: other memory would lose its contents.
    """
    _advise(tensor, getattr(mmap, "MADV_DONTNEED", None), outward=outward)


def _advise(tensor: "Tensor", advice: int | None, *, outward: bool) -> None:
    """madvise on the pages that hold the tensor: those wholly inside it, or all it touches."""
    madvise = _madvise()
    if madvise is None or advice is None or tensor.numel() == 0:
        return
    begin = tensor.data_ptr()
    end = begin + tensor.numel() * tensor.element_size()
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
