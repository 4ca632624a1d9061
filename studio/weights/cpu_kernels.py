"""Gram matrix and mix on the CPU: loops of machine code (`loops`) over elements (`mapped_loops`).

The mix of an element has the same bits however a tensor is cut.
"""

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from studio.weights import mapped_loops
from studio.weights.dtypes import TORCH_NAMES
from studio.weights.elements import Elements, Flat
from studio.weights.gram import SHORT, NonFinite
from studio.weights.loops import LANES, MixState, gram_loop, mix_loop
from studio.weights.values import all_finite, in_fp32

LARGEST = {"F16": 65504.0, "BF16": (2 - 2**-7) * 2.0**127, "F32": (2 - 2**-23) * 2.0**127}
"""The largest number that each type of a result holds."""


def prepare(kinds: tuple[str, ...], kind: str) -> None:
    """Make the machine code for sources of these types and a result of that type, once for all."""
    mapped_loops.prepare()
    gram_loop(kinds, LANES)
    mix_loop(kinds, kind, LANES)


def partial_gram(sources: Sequence[Elements]) -> NDArray[np.float64]:
    """The (n, n) Gram matrix of n equally long rows of elements, in the difference basis.

    The sum over the parts of a tensor is that of the whole. Raises NonFinite if a source holds NaN,
    infinity or a value beyond fp32.
    """
    if sources[0].count <= SHORT:
        total = _gram_in_double(sources)
    else:
        total = _gram(sources)
    if not np.isfinite(total).all():
        for index, source in enumerate(sources):
            if not all_finite(source):
                raise NonFinite("NaN, infinity or a value too large for float32", index)
        total = _gram_in_double(sources)  # squares that leave fp32
    return total


def sampled_gram(sources: Sequence[Elements]) -> NDArray[np.float64]:
    """`partial_gram` of a block that stands for many: however short, with fp32 products."""
    total = _gram(sources)
    return total if np.isfinite(total).all() else partial_gram(sources)


def mix(sources: Sequence[Elements], weights: Sequence[float], out: Flat) -> None:
    """Write Σ weights[i] · sources[i] into `out`: computed in fp32, rounded to out's dtype once.

    All have the same number of elements. Raises NonFinite if a sum does not fit out's dtype.
    """
    factors = np.array(weights, np.float32)
    kinds = tuple(source.dtype for source in sources)
    state = MixState(factors.ctypes.data, out.data.ctypes.data, 0)
    for lanes, start, stop in _runs(out.count):
        parts = [source.part(start, stop) for source in sources]
        mapped_loops.run(mix_loop(kinds, out.dtype, lanes), parts, ctypes.addressof(state))
    magnitude = np.uint32(state.largest).view(np.float32)
    if not magnitude <= LARGEST[out.dtype] and not all_finite(out):
        raise NonFinite(
            f"{magnitude:.6g} does not fit {TORCH_NAMES[out.dtype]}, which ends at "
            f"{LARGEST[out.dtype]:.6g}",
            None,
        )


def _gram(sources: Sequence[Elements]) -> NDArray[np.float64]:
    n = len(sources)
    kinds = tuple(source.dtype for source in sources)
    products = np.zeros(n * (n + 1) // 2)
    for lanes, start, stop in _runs(sources[0].count):
        parts = [source.part(start, stop) for source in sources]
        mapped_loops.run(gram_loop(kinds, lanes), parts, products.ctypes.data)
    total = np.empty((n, n))
    lower = _lower_triangle(n)
    total[lower] = total.T[lower] = products
    return total


@cache
def _lower_triangle(n: int) -> tuple[NDArray[np.intp], ...]:
    return np.tril_indices(n)


def _gram_in_double(sources: Sequence[Elements]) -> NDArray[np.float64]:
    """The same with fp64 products: for few values, and for those whose squares leave fp32."""
    total = np.zeros((len(sources), len(sources)))
    for start in range(0, sources[0].count, SHORT):
        values = np.array([in_fp32(s.part(start, start + SHORT)) for s in sources], np.float64)
        with np.errstate(invalid="ignore"):  # infinities: the caller looks for them
            values[1:] -= values[0]
            total += values @ values.T
    return total


def _runs(count: int) -> list[tuple[int, int, int]]:
    """(lanes, start, stop): as many whole turns of a loop as there are, the rest one by one."""
    whole = count - count % LANES
    return [run for run in ((LANES, 0, whole), (1, whole, count)) if run[1] < run[2]]
