"""Gram matrices against fp64, in the digits that matter, and with every way to fail."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from studio.weights.gram import SHORT, NonFinite, from_difference_basis
from studio.weights.torch_kernels import BLOCK, CHUNK, Scratch, partial_gram


def normal(
    shape: int | tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gram(tensors: Sequence[Tensor], scratch: Scratch | None = None) -> np.ndarray:
    """Of whole tensors."""
    scratch = scratch or Scratch(len(tensors))
    return from_difference_basis(partial_gram(tensors, 0, tensors[0].numel(), scratch))


def exact(tensors: Sequence[Tensor]) -> np.ndarray:
    """The same in fp64 throughout."""
    stacked = torch.stack([tensor.reshape(-1).double() for tensor in tensors])
    return (stacked @ stacked.T).numpy()


def relative_error(matrix: np.ndarray, tensors: Sequence[Tensor]) -> float:
    """The largest error of an inner product, relative to the product of the norms."""
    truth = exact(tensors)
    norms = np.sqrt(np.diag(truth))
    return float(np.abs((matrix - truth) / np.outer(norms, norms)).max())


def squared_distance(matrix: np.ndarray, i: int, j: int) -> float:
    return float(matrix[i, i] - 2 * matrix[i, j] + matrix[j, j])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "numel", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + BLOCK + 5]
)
def test_gram_is_that_of_fp64(numel: int, count: int) -> None:
    tensors = [normal(numel, seed) for seed in range(count)]
    assert relative_error(gram(tensors), tensors) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gram_takes_every_float_type_and_shape(dtype: torch.dtype) -> None:
    tensors = [normal((70, 101), 1, dtype), normal((70, 101), 2, torch.bfloat16)]
    assert relative_error(gram(tensors), tensors) < 2e-6


def test_gram_of_whole_numbers_is_exact_and_symmetric() -> None:
    tensors = [torch.arange(6.0), torch.ones(6), torch.tensor([1.0, -1, 1, -1, 1, -1])]
    assert_array_equal(gram(tensors), [[55, 15, -3], [15, 6, 0], [-3, 0, 6]])


def test_gram_is_symmetric_to_the_last_bit() -> None:
    matrix = gram([normal(CHUNK + 77, seed) for seed in range(4)])
    assert_array_equal(matrix, matrix.T)


def test_gram_of_nothing_is_zero() -> None:
    assert_array_equal(gram([torch.empty(0, 8), torch.empty(0, 8)]), np.zeros((2, 2)))


@pytest.mark.parametrize("step", [1e-2, 1e-3, 1e-4])
def test_gram_keeps_the_distance_of_nearly_parallel_tensors(step: float) -> None:
    """A plain fp32 Gram matrix has no digit of it left at a step of 1e-4."""
    base = normal(2_000_000, 1)
    near = base + step * normal(2_000_000, 2)
    truth = (near.double() - base.double()).square().sum().item()
    assert squared_distance(gram([base, near]), 0, 1) == pytest.approx(truth, rel=1e-6)
    plain = torch.stack([base, near])
    wrong = squared_distance((plain @ plain.T).numpy().astype(np.float64), 0, 1)
    assert step > 1e-4 or abs(wrong / truth - 1) > 1e-3


def test_gram_of_a_tensor_with_itself_has_no_distance() -> None:
    tensor = normal(10_000)
    assert squared_distance(gram([tensor, tensor]), 0, 1) == 0


@given(
    cuts=st.lists(st.integers(0, 2 * CHUNK + 1000), max_size=6),
    seed=st.integers(0, 100),
)
def test_partial_grams_add_up(cuts: list[int], seed: int) -> None:
    numel = 2 * CHUNK + 1000
    tensors, scratch = [normal(numel, seed), normal(numel, seed + 1)], Scratch(2)
    edges = [0, *sorted(cuts), numel]
    total = sum(
        partial_gram(tensors, begin, end, scratch)
        for begin, end in zip(edges, edges[1:], strict=False)
    )
    assert relative_error(from_difference_basis(np.asarray(total)), tensors) < 2e-6


def test_long_ranges_of_whole_blocks_lose_nothing() -> None:
    """Block by block the fp32 products are the same; only the fp64 sums are taken in two steps."""
    tensors, scratch = [normal(3 * CHUNK + 9, seed) for seed in range(3)], Scratch(3)
    edges = [0, CHUNK + 5 * BLOCK, 3 * CHUNK + 9]
    assert min(np.diff(edges)) > SHORT
    parts = [partial_gram(tensors, a, b, scratch) for a, b in zip(edges, edges[1:], strict=False)]
    whole = partial_gram(tensors, 0, 3 * CHUNK + 9, scratch)
    assert_allclose(np.asarray(sum(parts)), whole, rtol=1e-13)


def test_partial_gram_is_in_the_difference_basis() -> None:
    first, second = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, 4, 3, 9])
    assert_array_equal(partial_gram([first, second], 1, 4, Scratch(2)), [[29, 24], [24, 29]])


@given(st.integers(1, 6), st.integers(0, 1000))
def test_from_difference_basis_undoes_the_differences(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(-9, 10, (count, 5)).astype(float)
    differences = vectors - vectors[0] * (np.arange(count) > 0)[:, None]
    assert_array_equal(from_difference_basis(differences @ differences.T), vectors @ vectors.T)


def test_from_difference_basis_is_symmetric_for_what_is_not_quite() -> None:
    assert_array_equal(
        from_difference_basis(np.array([[4.0, 1.0], [3.0, 5.0]])), [[4.0, 6.0], [6.0, 13.0]]
    )


def test_scratch_may_hold_anything_and_be_larger() -> None:
    scratch = Scratch(5)
    scratch.values.fill_(torch.nan)
    tensors = [normal(CHUNK + 5000, seed) for seed in range(3)]
    assert_array_equal(gram(tensors, scratch), gram(tensors))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("position", [0, BLOCK, CHUNK + 3])
@pytest.mark.parametrize("source", [0, 1, 2])
def test_gram_names_the_source_of_a_non_finite_value(
    source: int, position: int, value: float
) -> None:
    tensors = [normal(CHUNK + 10, seed, torch.bfloat16) for seed in range(3)]
    tensors[source][position] = value
    with pytest.raises(NonFinite, match="NaN, infinity or a value too large") as told:
        gram(tensors)
    assert told.value.source == source


def test_gram_names_the_first_of_several_sources() -> None:
    broken = torch.tensor([1.0, torch.nan])
    with pytest.raises(NonFinite) as told:
        gram([torch.ones(2), broken, broken])
    assert told.value.source == 1


def test_gram_refuses_what_fp32_cannot_hold() -> None:
    with pytest.raises(NonFinite) as told:
        gram([torch.ones(2).double(), torch.tensor([1.0, 1e39], dtype=torch.float64)])
    assert told.value.source == 1


@pytest.mark.parametrize("scale", [1e25, 3e38])
def test_gram_of_large_finite_values_is_computed_in_fp64(scale: float) -> None:
    """Their products, and even their differences, do not fit fp32."""
    tensors = [torch.full((5000,), scale), torch.full((5000,), -scale)]
    assert_allclose(gram(tensors), exact(tensors), rtol=1e-12)


@pytest.mark.gpu
def test_gram_on_a_gpu_is_that_of_fp64() -> None:
    tensors = [normal(20_000_001, seed, torch.bfloat16) for seed in range(3)]
    scratch = Scratch(3, "cuda")
    assert scratch.chunk > CHUNK
    for inputs in (tensors, [tensor.cuda() for tensor in tensors]):
        assert relative_error(gram(inputs, scratch), tensors) < 2e-6
