"""A few blocks of a tensor, read at their places in the files: their Gram matrices."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from studio.weights.cpu_kernels import partial_gram, sampled_gram
from studio.weights.elements import OpenFiles
from studio.weights.header import TensorInfo


def block_grams(
    sources: Sequence[TensorInfo], starts: Sequence[int], count: int
) -> NDArray[np.float64]:
    """The (k, n, n) Gram matrices of k blocks of n tensors, in the difference basis.

    Block i is the elements starts[i] … starts[i] + count - 1; only these are read. A single block
    may be the whole tensor and is computed with more digits. Raises NonFinite if an element is NaN,
    infinite or beyond fp32, StudioError if a file cannot be read.
    """
    gram = sampled_gram if len(starts) > 1 else partial_gram
    with closing(OpenFiles()) as files:
        spans = [files.span(info) for info in sources]
        for span in spans:
            span.expect_jumps()
        return np.array([gram([span.part(at, at + count) for span in spans]) for at in starts])
