"""The mix: its exact bits, whatever the slicing, and its range."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from studio.weights.gram import NonFinite
from studio.weights.torch_kernels import CHUNK, Scratch, mix

WEIGHTS = (0.3721, 0.41, 0.2345)


def sources(numel: int, dtype: torch.dtype = torch.bfloat16, count: int = 3) -> list[Tensor]:
    random_numbers = torch.Generator().manual_seed(numel)
    return [torch.randn(numel, generator=random_numbers).to(dtype) for _ in range(count)]


def mixed(tensors: list[Tensor], weights: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    out = torch.full(tensors[0].shape, torch.nan, dtype=dtype)
    mix(tensors, weights, out, Scratch(len(tensors)))
    return out


def fixed_sequence(tensors: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """The definition of the bits, in numpy: fp32, product by product, one sum after the other."""
    total = tensors[0].float().numpy() * np.float32(weights[0])
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total = total + tensor.float().numpy() * np.float32(weight)
    return torch.from_numpy(total)


@pytest.mark.parametrize("out", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("numel", [1, 13, CHUNK, 2 * CHUNK + 4099])
def test_mix_has_the_bits_of_the_fixed_sequence(
    numel: int, dtype: torch.dtype, out: torch.dtype
) -> None:
    tensors = sources(numel, dtype)
    expected = fixed_sequence(tensors, WEIGHTS).to(out)
    assert torch.equal(mixed(tensors, WEIGHTS, out), expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_mix_is_within_fp32_of_fp64(count: int) -> None:
    tensors = sources(100_001, torch.float32, count)
    weights = tuple(0.1 + 0.2 * index for index in range(count))
    truth = sum(w * t.double() for w, t in zip(weights, tensors, strict=True))
    error = (mixed(tensors, weights, torch.float32).double() - truth).norm() / truth.norm()
    assert error <= 2e-7


def test_mix_keeps_shapes_and_takes_mixed_types() -> None:
    first = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float16)
    second = torch.tensor([[10.0, 20.0], [30.0, 40.0]], dtype=torch.float64)
    out = mixed([first, second], (0.5, 0.25), torch.bfloat16)
    assert out.tolist() == [[3.0, 6.0], [9.0, 12.0]]


def test_mix_of_one_source_with_weight_one_is_the_source() -> None:
    (tensor,) = sources(CHUNK + 1, torch.bfloat16, 1)
    assert torch.equal(mixed([tensor], (1.0,), torch.bfloat16), tensor)


def test_mix_of_nothing_is_nothing() -> None:
    assert mixed([torch.empty(0, 4), torch.empty(0, 4)], (1.0, 2.0), torch.float16).shape == (0, 4)


@given(cuts=st.lists(st.integers(0, CHUNK + 5001), max_size=8))
def test_slices_have_the_bits_of_the_whole(cuts: list[int]) -> None:
    numel = CHUNK + 5001
    tensors, scratch = sources(numel), Scratch(3)
    whole = mixed(tensors, WEIGHTS, torch.bfloat16)
    pieces = torch.full_like(whole, torch.nan)
    edges = [0, *sorted(cuts), numel]
    for begin, end in zip(edges, edges[1:], strict=False):
        mix([tensor[begin:end] for tensor in tensors], WEIGHTS, pieces[begin:end], scratch)
    assert torch.equal(pieces, whole)


def test_mix_ignores_what_its_memory_held() -> None:
    tensors, scratch, out = sources(500), Scratch(3), torch.empty(500)
    scratch.values.fill_(torch.nan)
    mix(tensors, WEIGHTS, out, scratch)
    assert torch.equal(out, fixed_sequence(tensors, WEIGHTS))


def test_mix_needs_a_weight_for_each_source() -> None:
    with pytest.raises(ValueError, match="zip"):
        mixed(sources(10), (0.5, 0.5), torch.float32)


@pytest.mark.parametrize("value", [65520.0, -65520.0, 1e30, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("position", [0, CHUNK + 2])
def test_mix_refuses_what_float16_cannot_hold(value: float, position: int) -> None:
    tensor = torch.zeros(CHUNK + 5)
    tensor[position] = value
    with pytest.raises(NonFinite, match="does not fit float16, which ends at 65504") as told:
        mixed([tensor, torch.zeros(CHUNK + 5)], (1.0, 1.0), torch.float16)
    assert told.value.source is None


def test_mix_accepts_all_that_float16_can_hold() -> None:
    """A norm beyond the range alone is no fault, nor is what rounds down to its end."""
    out = mixed([torch.full((9000,), 65519.0)], (1.0,), torch.float16)
    assert (out == 65504).all()
    out = mixed([torch.full((9000,), 65519.0)], (-1.0,), torch.float16)
    assert (out == -65504).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_mix_on_a_gpu_has_the_bits_of_the_cpu(dtype: torch.dtype) -> None:
    tensors, scratch = sources(17_000_003, dtype), Scratch(3, "cuda")
    expected = mixed(tensors, WEIGHTS, dtype)
    for inputs in (tensors, [tensor.cuda() for tensor in tensors]):
        out = torch.empty_like(inputs[0])
        mix(inputs, WEIGHTS, out, scratch)
        assert torch.equal(out.cpu(), expected)
