"""A few blocks of a tensor, read at their places in the file, and what they tell of the whole."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.weights.dtypes import ITEMSIZE
from studio.weights.gram import NonFinite
from studio.weights.header import TensorInfo

Singles = NDArray[np.float32]


def block_grams(
    sources: Sequence[TensorInfo], starts: Sequence[int], count: int
) -> NDArray[np.float64]:
    """The (k, n, n) Gram matrices of k blocks of n tensors, in the difference basis.

    Block i is the elements starts[i] … starts[i] + count - 1. Only these are read. Raises NonFinite
    if one of them is NaN, infinite or beyond fp32, StudioError if a file cannot be read.
    """
    values = np.empty((len(starts), len(sources), count), np.float32)
    for number, info in enumerate(sources):
        with np.errstate(over="ignore"):
            _read(info, starts, values[:, number])
        if not np.isfinite(values[:, number]).all():
            raise NonFinite("NaN, infinity or a value too large for float32", number)
    values[:, 1:] -= values[:, :1]
    wide = (block.astype(np.float64) for block in values)
    return np.array([block @ block.T for block in wide])


def _read(info: TensorInfo, starts: Sequence[int], out: Singles) -> None:
    """Fill the rows of `out` with the elements of the tensor from each start on."""
    size = ITEMSIZE[info.dtype]
    length = out.shape[1] * size
    with ExitStack() as stack:
        try:
            file = os.open(info.file, os.O_RDONLY)
            stack.callback(os.close, file)
            if hasattr(os, "posix_fadvise"):  # the kernel would read ahead what nobody wants
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            for row, start in zip(out, starts, strict=True):
                row[:] = _widened(os.pread(file, length, info.start + start * size), info.dtype)
        except (OSError, ValueError) as error:  # ValueError: fewer bytes, the file has shrunk
            raise StudioError(
                f"{info.file}: tensor {info.name!r} cannot be read ({error}); the file has changed "
                "since it was opened: start again"
            ) from error


def _widened(data: bytes, dtype: str) -> NDArray[np.floating]:
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.frombuffer(data, {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype])
