"""Gram matrices: the inner products <x_i, x_j> of tensors taken as flat vectors.

They are accumulated in the difference basis x_1, x_2 - x_1, …, x_n - x_1, which keeps the digits of
nearly parallel models: their angle is in the differences. Products are fp32 in short blocks, the
sums of the blocks fp64; plain fp32 is off by 1e-5 for millions of elements.
"""

import numpy as np
from numpy.typing import NDArray

SHORT = 1 << 16  # elements: below, too few blocks for fp32's rounding errors to cancel


class NonFinite(ValueError):
    """A value is NaN, infinite or too large.

    `source` is the index of the first input that holds one in fp32, or None if the inputs are fine
    but the result does not fit its type.
    """

    def __init__(self, message: str, source: int | None) -> None:
        super().__init__(message)
        self.source = source


def from_difference_basis(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric Gram matrices (…, n, n) of x_1, …, x_n from those of x_1, x_2 - x_1, …."""
    basis = np.eye(totals.shape[-1])
    basis[:, 0] = 1
    return basis @ ((totals + totals.swapaxes(-1, -2)) / 2) @ basis.T
