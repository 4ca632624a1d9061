"""Tensors as pages of a file: mapped instead of read.

The pages are the kernel's cached copy of the file. They count as the process's memory from the
first touch to the end of the map.
"""

import ctypes
import mmap
import os
import weakref
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from studio.weights.dtypes import TORCH_NAMES
from studio.weights.elements import Span, span_of
from studio.weights.header import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

HUGE = 2 << 20  # bytes of a huge page: a map of whole ones is made and undone in steps of that size
HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", mmap.MADV_NORMAL)  # an advice: also read in such pages
POPULATE_READ = 22  # an advice of Linux 5.14: have the pages ready, and say if that cannot be
PREFETCH_BYTES = 2 * HUGE  # at a time: meanwhile they count as the process's memory
# No reserve: a large file mapped as writable is not to count as memory that will be needed.
_PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)


def map_tensor(info: TensorInfo) -> "Tensor":
    """The tensor on the CPU, contiguous, its elements still in the file; imports torch.

    The map lives as long as the tensor and its views. Writing to it changes neither the file nor
    other maps. Raises StudioError if the file is gone or has shrunk.
    """
    import torch

    dtype = getattr(torch, TORCH_NAMES[info.dtype])
    if info.nbytes == 0:
        return torch.empty(info.shape, dtype=dtype)
    skipped = info.start % mmap.ALLOCATIONGRANULARITY
    with span_of(info) as whole:
        descriptor = whole.file.fileno()
        if os.fstat(descriptor).st_size < info.start + info.nbytes:
            raise whole.failure(None)
        try:
            pages = _map(descriptor, info.start - skipped, skipped + info.nbytes)
        except OSError as error:
            raise whole.failure(error.strerror) from error
    data = np.frombuffer(memoryview(pages), np.uint8, offset=skipped)
    return torch.frombuffer(data, dtype=dtype).view(info.shape)


def _map(descriptor: int, offset: int, length: int) -> "ctypes.Array[ctypes.c_char]":
    """mmap by the C library: unlike Python's own it lets other threads run while pages are freed.

    It also holds no file descriptor. The map is private, so that it may be writable, as torch
    wants its buffers; it shares the page cache all the same.
    """
    libc = _libc()
    access = mmap.PROT_READ | mmap.PROT_WRITE
    address = libc.mmap(None, length, access, _PRIVATE, descriptor, offset)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    pages = (ctypes.c_char * length).from_address(address)
    weakref.finalize(pages, libc.munmap, address, length).atexit = False
    return pages


def prefetch(span: Span) -> None:
    """Have the disk read elements, in whole huge pages if it may be; returns when it has.

    At most PREFETCH_BYTES. What cannot be read is left for whoever needs it.
    """
    begin = span.start - span.start % HUGE
    with suppress(OSError):
        pages = _map(span.file.fileno(), begin, span.start + span.nbytes - begin)
        address, advise = ctypes.addressof(pages), _libc().madvise
        advise(address, len(pages), HUGE_PAGES)
        if advise(address, len(pages), POPULATE_READ):
            advise(address, len(pages), mmap.MADV_WILLNEED)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    size, number, pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    libc.mmap.restype = pointer
    libc.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    libc.munmap.argtypes = (pointer, size)
    libc.madvise.argtypes = (pointer, size, number)
    return libc
