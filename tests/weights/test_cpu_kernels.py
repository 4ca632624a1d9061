"""The compiled loops give torch's bits in the mix, and fp64's Gram matrix; however they are cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from studio.weights.cpu_kernels import mix, partial_gram, prepare
from studio.weights.dtypes import ITEMSIZE
from studio.weights.elements import Flat
from studio.weights.gram import SHORT, NonFinite, from_difference_basis
from studio.weights.loops import BLOCK
from studio.weights.torch_kernels import TORCH, Scratch
from studio.weights.torch_kernels import mix as torch_mix
from studio.weights.values import all_finite

DTYPES = ("BF16", "F16", "F32", "F64")
WEIGHTS = (0.37543, 0.42661, 0.2)


def normal(count: int, seed: int, dtype: str = "F32", scale: float = 0.02) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, generator=generator, dtype=torch.float64) * scale).to(TORCH[dtype])


def flat(tensor: Tensor) -> Flat:
    (name,) = (name for name, dtype in TORCH.items() if dtype == tensor.dtype)
    return Flat(name, tensor.view(torch.uint8).numpy())


def mixed(tensors: list[Tensor], weights: tuple[float, ...], dtype: str) -> Tensor:
    out = torch.zeros(tensors[0].numel(), dtype=TORCH[dtype])
    mix([flat(tensor) for tensor in tensors], weights, flat(out))
    return out


def exact_gram(tensors: list[Tensor]) -> np.ndarray:
    rows = torch.stack([tensor.double() for tensor in tensors])
    return (rows @ rows.T).numpy()


@pytest.mark.parametrize("target", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("first", DTYPES)
@pytest.mark.parametrize("second", DTYPES)
@pytest.mark.parametrize("count", [1, 13, BLOCK, 3 * BLOCK + 7])
def test_mix_has_the_bits_of_torch(first: str, second: str, target: str, count: int) -> None:
    tensors = [normal(count, 1, first), normal(count, 2, second), normal(count, 3, first)]
    wanted = torch.empty(count, dtype=TORCH[target])
    torch_mix(tensors, WEIGHTS, wanted, Scratch(3))
    assert torch.equal(mixed(tensors, WEIGHTS, target), wanted)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_half_precision_value_passes_unchanged(dtype: str) -> None:
    """All 65,536 patterns: normal, subnormal, zeros of both signs; NaN is refused."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = patterns.view(TORCH[dtype])
    numbers = values[~values.isnan() & ~values.isinf()]
    assert torch.equal(mixed([numbers], (1.0,), dtype).view(torch.int16), numbers.view(torch.int16))
    with pytest.raises(NonFinite, match="nan does not fit float32"):
        mixed([values[values.isnan()]], (1.0,), "F32")


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_rounding_is_to_nearest_and_ties_to_even(dtype: str) -> None:
    halves = normal(5000, 4, dtype, scale=1.0).float()
    step = torch.finfo(TORCH[dtype]).eps * halves.abs()
    values = torch.cat([halves, halves + step / 2, halves - step / 4, halves * 1e-5])
    assert torch.equal(mixed([values], (1.0,), dtype), values.to(TORCH[dtype]))


@given(start=st.integers(0, 2 * BLOCK), count=st.integers(1, BLOCK))
@settings(deadline=None, max_examples=40)
def test_a_slice_of_the_mix_has_the_bits_of_the_whole(start: int, count: int) -> None:
    tensors = [normal(3 * BLOCK, seed, "BF16") for seed in range(3)]
    out = torch.zeros(count, dtype=torch.bfloat16)
    mix([flat(t).part(start, start + count) for t in tensors], WEIGHTS, flat(out))
    assert torch.equal(out, mixed(tensors, WEIGHTS, "BF16")[start : start + count])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, BLOCK + 3, SHORT, SHORT + 1, 5 * SHORT + 11])
def test_gram_is_that_of_fp64(dtype: str, count: int) -> None:
    tensors = [normal(count, seed, dtype) for seed in range(3)]
    found = from_difference_basis(partial_gram([flat(t) for t in tensors]))
    wanted = exact_gram(tensors)
    size = np.sqrt(np.outer(wanted.diagonal(), wanted.diagonal()))
    assert_allclose(found, wanted, rtol=0, atol=2e-7 * size.max(initial=1e-30))


def test_gram_keeps_the_angle_of_nearly_parallel_tensors() -> None:
    first = normal(4 * SHORT, 1)
    tensors = [first, first + 1e-4 * normal(4 * SHORT, 2)]
    found = from_difference_basis(partial_gram([flat(t) for t in tensors]))
    distance = found[0, 0] + found[1, 1] - 2 * found[0, 1]
    wanted = (tensors[1].double() - tensors[0].double()).square().sum().item()
    assert_allclose(distance, wanted, rtol=1e-5)


def test_partial_grams_add_up() -> None:
    tensors = [flat(normal(3 * SHORT, seed, "BF16")) for seed in range(3)]
    whole = partial_gram(tensors)
    cuts = (0, SHORT, 2 * SHORT)
    parts = [partial_gram([t.part(a, a + SHORT) for t in tensors]) for a in cuts]
    assert_allclose(sum(parts), whole, rtol=2e-6, atol=1e-9)
    assert_array_equal(whole, whole.T)


@pytest.mark.parametrize("count", [100, 3 * SHORT])
def test_gram_of_values_whose_squares_leave_fp32_is_finite(count: int) -> None:
    tensors = [normal(count, seed, scale=1e25) for seed in range(2)]
    found = from_difference_basis(partial_gram([flat(t) for t in tensors]))
    assert_allclose(found, exact_gram(tensors), rtol=1e-6, atol=1e-6 * found.max())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("count", [50, 2 * SHORT])
@pytest.mark.parametrize("source", [0, 1, 2])
def test_gram_names_the_source_that_is_not_finite(bad: float, count: int, source: int) -> None:
    tensors = [normal(count, seed, "BF16") for seed in range(3)]
    tensors[source][count // 2] = bad
    assert [all_finite(flat(t)) for t in tensors] == [n != source for n in range(3)]
    with pytest.raises(NonFinite) as caught:
        partial_gram([flat(tensor) for tensor in tensors])
    assert caught.value.source == source


def test_mix_refuses_a_sum_that_float16_cannot_hold() -> None:
    tensors = [torch.full((2000,), 40_000.0), torch.full((2000,), 30_000.0)]
    with pytest.raises(NonFinite, match="70000 does not fit float16"):
        mixed(tensors, (1.0, 1.0), "F16")
    assert mixed(tensors, (1.0, 1.0), "F32").max() == 70_000
    assert mixed([torch.tensor([65504.0, 65519.0])], (1.0,), "F16").max() == 65504


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("place", [0, 17, 100])
def test_mix_refuses_a_sum_beyond_the_wide_types(dtype: str, place: int) -> None:
    tensors = [torch.zeros(101), torch.zeros(101)]
    for tensor in tensors:
        tensor[place] = 2e38
    with pytest.raises(NonFinite, match="inf does not fit .*float.*, which ends at 3[.][34]"):
        mixed(tensors, (1.0, 1.0), dtype)
    assert mixed(tensors, (1.0, 0.5), dtype).max() > 2.9e38
    largest = torch.tensor([torch.finfo(TORCH[dtype]).max])
    assert torch.equal(mixed([largest], (1.0,), dtype).float(), largest)


def test_bytes_that_lie_unaligned_are_read_rightly() -> None:
    values = normal(5000, 9, "F32")
    room = np.zeros(ITEMSIZE["F32"] * 5000 + 1, np.uint8)
    room[1:] = values.view(torch.uint8).numpy()
    out = torch.empty(5000)
    mix([Flat("F32", room[1:])], (1.0,), flat(out))
    assert torch.equal(out, values)


def test_what_is_prepared_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("F64", "F16", "F64", "F16", "BF16")  # in no other test
    prepare(kinds, "F32")
    monkeypatch.setattr("studio.weights.loops.compiled", lambda builder: pytest.fail("made again"))
    tensors = [normal(2 * SHORT, seed, kind) for seed, kind in enumerate(kinds)]
    partial_gram([flat(tensor) for tensor in tensors])
    mixed(tensors, (0.2,) * 5, "F32")
