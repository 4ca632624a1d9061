"""A few blocks of a tensor, read at their places in the files: their Gram matrices."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError
from studio.weights.cpu_kernels import partial_gram, sampled_gram
from studio.weights.dtypes import ITEMSIZE
from studio.weights.header import TensorInfo
from studio.weights.pages import Flat


def block_grams(
    sources: Sequence[TensorInfo], starts: Sequence[int], count: int
) -> NDArray[np.float64]:
    """The (k, n, n) Gram matrices of k blocks of n tensors, in the difference basis.

    Block i is the elements starts[i] … starts[i] + count - 1; only these are read. A single block
    may be the whole tensor and is computed with more digits. Raises NonFinite if an element is NaN,
    infinite or beyond fp32, StudioError if a file cannot be read.
    """
    gram = sampled_gram if len(starts) > 1 else partial_gram
    with ExitStack() as stack:
        files = [_open(info, stack) for info in sources]
        found = []
        for start in starts:
            parts = zip(sources, files, strict=True)
            found.append(gram([_read(info, file, (start, count)) for info, file in parts]))
    return np.array(found)


def _open(info: TensorInfo, stack: ExitStack) -> int:
    try:
        file = os.open(info.file, os.O_RDONLY)
    except OSError as error:
        raise _changed(info, error.strerror) from error
    stack.callback(os.close, file)
    if hasattr(os, "posix_fadvise"):  # the kernel would read ahead what nobody wants
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    return file


def _read(info: TensorInfo, file: int, block: tuple[int, int]) -> Flat:
    """The elements of a block: its first and their number."""
    start, count = (number * ITEMSIZE[info.dtype] for number in block)
    try:
        data = os.pread(file, count, info.start + start)
    except OSError as error:
        raise _changed(info, error.strerror) from error
    if len(data) < count:
        raise _changed(info, f"only {len(data)} of {count} bytes")
    return Flat(info.dtype, np.frombuffer(data, np.uint8))


def _changed(info: TensorInfo, reason: str | None) -> StudioError:
    return StudioError(
        f"{info.file}: tensor {info.name!r} cannot be read ({reason}); the file has changed since "
        "it was opened: start again"
    )
