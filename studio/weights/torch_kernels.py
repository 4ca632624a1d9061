"""Gram matrix and mix of torch tensors, on any device.

On the CPU `cpu_kernels` does the same faster, and its mix gives the same bits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from studio.weights.dtypes import TORCH_NAMES
from studio.weights.elements import Elements, Flat
from studio.weights.gram import SHORT, NonFinite

BLOCK = 4096  # elements whose products are added in fp32
CHUNK = 16 * BLOCK  # elements at a time: three fp32 buffers of 64 Ki stay in a core's L2 cache
_DEVICE_CHUNK = 256 * CHUNK
_FLOAT16_MAX = 65504.0
TORCH = {name: getattr(torch, torch_name) for name, torch_name in TORCH_NAMES.items()}
"""The types of `dtypes.py` as torch's own."""


class Scratch:
    """The working memory of one thread: `values`, fp32, (at least two and `count`, `chunk`)."""

    def __init__(self, count: int, device: str | torch.device = "cpu") -> None:
        on_cpu = torch.device(device).type == "cpu"
        self.chunk = CHUNK if on_cpu else _DEVICE_CHUNK
        self.values = torch.empty(max(count, 2), self.chunk, dtype=torch.float32, device=device)


def partial_gram(
    tensors: Sequence[Tensor], start: int, stop: int, scratch: Scratch
) -> NDArray[np.float64]:
    """The (n, n) Gram matrix of the elements start … stop - 1, in the difference basis.

    Of tensors of one element count and any float types. The sum over ranges is the whole; to get
    the same bits, add the same ranges in the same order. Raises NonFinite if a tensor holds NaN,
    infinity or a value beyond fp32.
    """
    flat = [tensor.reshape(-1)[start:stop] for tensor in tensors]
    buffer = scratch.values[: len(flat)]
    total = _sum_of_products(flat, buffer, exact=stop - start <= SHORT)
    if not np.isfinite(total).all():
        _refuse_non_finite(flat)
        total = _sum_of_products(flat, buffer, exact=True)
    return total


def _sum_of_products(flat: Sequence[Tensor], buffer: Tensor, *, exact: bool) -> NDArray[np.float64]:
    """The Gram matrix in the difference basis of the values in fp32, by way of `buffer` (n, chunk).

    `exact`: differences and products in fp64.
    """
    products = []
    for begin in range(0, flat[0].numel(), buffer.shape[1]):
        end = min(begin + buffer.shape[1], flat[0].numel())
        values = buffer[:, : end - begin]
        for row, source in zip(values, flat, strict=True):
            row.copy_(source[begin:end])
        if exact:
            values = values.double()
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


def mix(tensors: Sequence[Tensor], weights: Sequence[float], out: Tensor, scratch: Scratch) -> None:
    """Write Σ weights[i] · tensors[i] into `out`: computed in fp32, rounded to out's type once.

    Tensors and `out` have one element count and are contiguous; slices of them give the same bits
    as the whole, wherever they are cut. Raises NonFinite if a sum does not fit a float16 `out`.
    """
    chunks = (torch.split(tensor.view(-1), scratch.chunk) for tensor in (out, *tensors))
    for target, *parts in zip(*chunks, strict=True):
        result = _weighted_sum(parts, weights, scratch.values)
        target.copy_(result)
        if out.dtype == torch.float16:
            _check_range(result, target)


def _weighted_sum(parts: Sequence[Tensor], weights: Sequence[float], buffer: Tensor) -> Tensor:
    """Σ weights[i] · parts[i] in the first row of `buffer`.

    Multiplication and addition stay apart: fused, they round once in a loop's vector part and twice
    in its tail, so that bits would depend on where a slice ends.
    """
    total, product = buffer[0, : parts[0].numel()], buffer[1, : parts[0].numel()]
    total.copy_(parts[0]).mul_(weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        product.copy_(part).mul_(weight)
        total.add_(product)
    return total


def _check_range(result: Tensor, rounded: Tensor) -> None:
    """Raise NonFinite if rounding to float16 made an infinity.

    No element exceeds the norm, which is nearly free; only a large norm is worth a second look.
    """
    if not result.dot(result).item() <= _FLOAT16_MAX**2 and not rounded.isfinite().all():
        largest = result.abs().max().item()
        raise NonFinite(f"{largest:.6g} does not fit float16, which ends at {_FLOAT16_MAX}", None)


class OnDevice:
    """The two functions of `cpu_kernels`, computed by torch on a device; for one thread."""

    def __init__(self, count: int, device: str) -> None:
        self._scratch = Scratch(count, device)

    def prepare(self, kinds: tuple[str, ...], kind: str) -> None:
        """Nothing: torch's functions are ready."""

    def partial_gram(self, sources: Sequence[Elements]) -> NDArray[np.float64]:
        """See `cpu_kernels.partial_gram`."""
        tensors = [_tensor(source) for source in sources]
        return partial_gram(tensors, 0, sources[0].count, self._scratch)

    def mix(self, sources: Sequence[Elements], weights: Sequence[float], out: Flat) -> None:
        """See `cpu_kernels.mix`."""
        mix([_tensor(source) for source in sources], weights, _tensor(out), self._scratch)


def _tensor(elements: Elements) -> Tensor:
    """The same elements as a tensor; those in memory are not copied."""
    return torch.from_numpy(elements.data).view(TORCH[elements.dtype])
