"""Gram matrices: the inner products ⟨x_i, x_j⟩ of tensors taken as flat vectors.

Products are fp32 in blocks of 4096 elements and their sums fp64; plain fp32 is off by 1e-5 for
millions of elements. They are accumulated in the difference basis x_1, x_2 - x_1, …, x_n - x_1,
which keeps the digits of nearly parallel models: their angle is in the differences.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 4096
CHUNK = 16 * BLOCK  # elements at a time: three fp32 buffers of 64 Ki stay in a core's L2 cache
_DEVICE_CHUNK = 256 * CHUNK


class NonFinite(ValueError):
    """A value is NaN, infinite or too large.

    `source` is the index of the first input that holds one in fp32, or None if the inputs are fine
    but the result does not fit its type.
    """

    def __init__(self, message: str, source: int | None) -> None:
        super().__init__(message)
        self.source = source


class Scratch:
    """The working memory of one thread: `values`, fp32, (at least two and `count`, `chunk`)."""

    def __init__(self, count: int, device: str | torch.device = "cpu") -> None:
        on_cpu = torch.device(device).type == "cpu"
        self.chunk = CHUNK if on_cpu else _DEVICE_CHUNK
        self.values = torch.empty(max(count, 2), self.chunk, dtype=torch.float32, device=device)


def gram(tensors: Sequence[Tensor], scratch: Scratch | None = None) -> NDArray[np.float64]:
    """The (n, n) Gram matrix of n tensors of one element count and any float types.

    Raises NonFinite if a tensor holds NaN, infinity or a value beyond fp32.
    """
    scratch = scratch or Scratch(len(tensors))
    return from_difference_basis(partial_gram(tensors, 0, tensors[0].numel(), scratch))


def partial_gram(
    tensors: Sequence[Tensor], start: int, stop: int, scratch: Scratch
) -> NDArray[np.float64]:
    """The (n, n) Gram matrix of the elements start … stop - 1, in the difference basis.

    The sum over ranges is the whole; to get the same bits, add the same ranges in the same order.
    Raises NonFinite as `gram` does.
    """
    flat = [tensor.reshape(-1)[start:stop] for tensor in tensors]
    total = _sum_of_products(flat, scratch.values[: len(flat)])
    if not np.isfinite(total).all():
        _refuse_non_finite(flat)
        total = _sum_of_products(flat, scratch.values[: len(flat)].double())
    return total


def from_difference_basis(total: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric Gram matrix (n, n) of x_1, …, x_n from that of x_1, x_2 - x_1, …, x_n - x_1."""
    basis = np.eye(len(total))
    basis[:, 0] = 1
    return basis @ ((total + total.T) / 2) @ basis.T


def _sum_of_products(flat: Sequence[Tensor], buffer: Tensor) -> NDArray[np.float64]:
    """The Gram matrix in the difference basis, computed in `buffer` (n, chunk) and its type."""
    products = []
    for begin in range(0, flat[0].numel(), buffer.shape[1]):
        end = min(begin + buffer.shape[1], flat[0].numel())
        values = buffer[:, : end - begin]
        for row, source in zip(values, flat, strict=True):
            row.copy_(source[begin:end])
        values[1:] -= values[0]
        whole = (end - begin) // BLOCK * BLOCK
        blocks = values[:, :whole].view(len(flat), -1, BLOCK).transpose(0, 1)
        products.append(torch.bmm(blocks, blocks.transpose(1, 2)))
        if whole < end - begin:
            rest = values[:, whole:]
            products.append((rest @ rest.T).unsqueeze(0))
    if not products:
        return np.zeros((len(flat), len(flat)))
    return torch.cat(products).sum(0, dtype=torch.float64).cpu().numpy()


def _refuse_non_finite(flat: Sequence[Tensor]) -> None:
    for index, source in enumerate(flat):
        for part in torch.split(source, _DEVICE_CHUNK):
            if not part.to(torch.float32).isfinite().all():
                raise NonFinite("NaN, infinity or a value too large for float32", index)
