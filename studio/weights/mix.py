"""The mix: the weighted sum of tensors, rounded once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from studio.weights.gram import NonFinite, Scratch

_FLOAT16_MAX = 65504.0


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
