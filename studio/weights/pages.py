"""Tensors as pages of a file: mapped instead of read.

The pages are the kernel's cached copy of the file. They count as the process's memory from the
first touch to the end of the map, so a pass that maps a range at a time needs a few megabytes.
"""

import ctypes
import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.weights.dtypes import ITEMSIZE, TORCH_NAMES
from studio.weights.header import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

Bytes = NDArray[np.uint8]
# No reserve: a large file mapped as writable is not to count as memory that will be needed.
_PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)


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


def map_bytes(info: TensorInfo) -> Bytes:
    """The bytes of a tensor, still in the file; no copy is made.

    The map lives as long as the array and its slices. Writing to it changes neither the file nor
    other maps. Raises StudioError if the file is gone or has shrunk.
    """
    if info.nbytes == 0:
        return np.empty(0, np.uint8)
    skipped = info.start % mmap.ALLOCATIONGRANULARITY
    try:
        with _opened(info) as descriptor:
            if os.fstat(descriptor).st_size < info.start + info.nbytes:
                raise EOFError("it has become shorter")
            pages = _map(descriptor, info.start - skipped, skipped + info.nbytes)
    except (OSError, EOFError) as error:
        raise StudioError(
            f"{info.file}: tensor {info.name!r} cannot be read ({error}); the file has changed "
            "since it was opened: start again"
        ) from error
    return np.frombuffer(memoryview(pages), np.uint8, offset=skipped)


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


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    size, number, pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    libc.mmap.restype = pointer
    libc.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    libc.munmap.argtypes = (pointer, size)
    return libc


def map_tensor(info: TensorInfo) -> "Tensor":
    """The same as a torch tensor on the CPU, contiguous."""
    import torch

    dtype = getattr(torch, TORCH_NAMES[info.dtype])
    if info.nbytes == 0:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(map_bytes(info), dtype=dtype).view(info.shape)


@contextmanager
def _opened(info: TensorInfo) -> Iterator[int]:
    """The tensor's file as a bare descriptor: a stream object costs more than all the rest."""
    descriptor = os.open(info.file, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
