"""Gram matrix and mix on the CPU: fused loops over the bytes of files, compiled by numba.

A block of each source is widened to fp32 in the first-level cache and used there, so a pass costs
little more than reading. The loops release the GIL and give the same bits however a tensor is cut.
They are compiled at first use, which takes some seconds, and cached beside this file.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from studio.weights.dtypes import ITEMSIZE
from studio.weights.gram import SHORT, NonFinite
from studio.weights.pages import Bytes, Flat

BLOCK = (
    1024  # elements whose products are added in fp32; four blocks of fp32 fit a first-level cache
)
FLOAT16_MAX = 65504.0
_BF16, _F16, _F32, _F64 = range(4)
_KINDS = {"BF16": _BF16, "F16": _F16, "F32": _F32, "F64": _F64}


def partial_gram(sources: Sequence[Flat], start: int, stop: int) -> NDArray[np.float64]:
    """The (n, n) Gram matrix of the elements start … stop - 1, in the difference basis.

    The sum over ranges is the whole. Raises NonFinite if a source holds NaN, infinity or a value
    beyond fp32.
    """
    raws, kinds = _raws_and_kinds(sources)
    loop = _gram_in_double if stop - start <= SHORT else _gram
    total: NDArray[np.float64] = loop(raws, kinds, start, stop)
    if not np.isfinite(total).all():
        for index, (raw, kind) in enumerate(zip(raws, kinds, strict=True)):
            if not _all_finite(raw, kind, start, stop):
                raise NonFinite("NaN, infinity or a value too large for float32", index)
        total = _gram_in_double(raws, kinds, start, stop)
    return total


def mix(sources: Sequence[Flat], weights: Sequence[float], start: int, out: Flat) -> None:
    """Write Σ weights[i] · sources[i] into `out`: computed in fp32, rounded to out's dtype once.

    `out` takes the elements from `start` on, as many as it has room for. Raises NonFinite if a sum
    does not fit a float16 `out`.
    """
    raws, kinds = _raws_and_kinds(sources)
    factors = np.array(weights, dtype=np.float32)
    largest = _mix(raws, kinds, factors, start, out.data, _KINDS[out.dtype])
    if out.dtype == "F16" and largest > FLOAT16_MAX and not all_finite(out):
        raise NonFinite(f"{largest:.6g} does not fit float16, which ends at {FLOAT16_MAX}", None)


def all_finite(values: Flat) -> bool:
    """Whether no element is NaN or infinite."""
    count = len(values.data) // ITEMSIZE[values.dtype]
    return bool(_all_finite(values.data, _KINDS[values.dtype], 0, count))


def _raws_and_kinds(sources: Sequence[Flat]) -> tuple[tuple[Bytes, ...], NDArray[np.int64]]:
    kinds = np.array([_KINDS[source.dtype] for source in sources], dtype=np.int64)
    return tuple(source.data for source in sources), kinds


@intrinsic
def _bits_to_half(context: Any, bits: Any) -> Any:
    """A uint16 read as IEEE half precision and widened to fp32 (exact)."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), code


@intrinsic
def _half_to_bits(context: Any, value: Any) -> Any:
    """An fp32 rounded to half precision, to nearest and ties to even, as its uint16."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), code


@intrinsic
def _bits_to_float(context: Any, bits: Any) -> Any:
    """A uint32 read as fp32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), code


@intrinsic
def _float_to_bits(context: Any, value: Any) -> Any:
    """The uint32 that holds an fp32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), code


def _loop(**options: Any) -> Callable[[Any], Any]:
    """Compile a loop at its first use, and keep it for the next process.

    Where neither this folder nor the home folder may be written to, each process compiles anew.
    """

    def decorate(function: Any) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba: "no locator available"
            return njit(nogil=True, **options)(function)

    return decorate


@_loop()
def _widen(raw, kind, start, count, out):  # type: ignore[no-untyped-def]
    """Elements start … start + count - 1 of the bytes `raw`, as fp32 in `out`."""
    if kind == _BF16:
        halves = raw[2 * start : 2 * (start + count)].view(np.uint16)
        for i in range(count):
            out[i] = _bits_to_float(np.uint32(halves[i]) << np.uint32(16))
    elif kind == _F16:
        halves = raw[2 * start : 2 * (start + count)].view(np.uint16)
        for i in range(count):
            out[i] = _bits_to_half(halves[i])
    elif kind == _F32:
        singles = raw[4 * start : 4 * (start + count)].view(np.float32)
        for i in range(count):
            out[i] = singles[i]
    else:
        doubles = raw[8 * start : 8 * (start + count)].view(np.float64)
        for i in range(count):
            out[i] = np.float32(doubles[i])


@_loop()
def _narrow(values, kind, out, at, count):  # type: ignore[no-untyped-def]
    """Round `count` fp32 values to `kind`, ties to even, into `out` from element `at` on."""
    if kind == _BF16:
        halves = out[2 * at : 2 * (at + count)].view(np.uint16)
        for i in range(count):
            bits = _float_to_bits(values[i])
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            halves[i] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    elif kind == _F16:
        halves = out[2 * at : 2 * (at + count)].view(np.uint16)
        for i in range(count):
            halves[i] = _half_to_bits(values[i])
    else:
        singles = out[4 * at : 4 * (at + count)].view(np.float32)
        for i in range(count):
            singles[i] = values[i]


@_loop(fastmath={"reassoc", "contract", "nsz"})
def _dot(a, b, count):  # type: ignore[no-untyped-def]
    """The inner product in fp32; the order of summation is the compiler's, to use vectors."""
    total = np.float32(0)
    for i in range(count):
        total += a[i] * b[i]
    return total


@_loop()
def _gram(raws, kinds, start, stop):  # type: ignore[no-untyped-def]
    n = len(raws)
    total = np.zeros((n, n))
    values = np.empty((n, BLOCK), np.float32)
    for begin in range(start, stop, BLOCK):
        count = min(BLOCK, stop - begin)
        for i in range(n):
            _widen(raws[i], kinds[i], begin, count, values[i])
        for i in range(1, n):
            for k in range(count):
                values[i, k] -= values[0, k]
        for i in range(n):
            for j in range(i + 1):
                total[i, j] += _dot(values[i], values[j], count)
                total[j, i] = total[i, j]
    return total


@_loop()
def _gram_in_double(raws, kinds, start, stop):  # type: ignore[no-untyped-def]
    """The same with fp64 products: for few values, and for those whose squares leave fp32."""
    n = len(raws)
    total = np.zeros((n, n))
    values = np.empty((n, BLOCK), np.float32)
    for begin in range(start, stop, BLOCK):
        count = min(BLOCK, stop - begin)
        for i in range(n):
            _widen(raws[i], kinds[i], begin, count, values[i])
        for k in range(count):
            first = np.float64(values[0, k])
            for i in range(n):
                a = np.float64(values[i, k]) - (first if i else 0.0)
                for j in range(n):
                    total[i, j] += a * (np.float64(values[j, k]) - (first if j else 0.0))
    return total


@_loop()
def _mix(raws, kinds, weights, start, out, kind):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Fill `out`; returns the largest magnitude where `kind` is half precision.

    Multiplication and addition round apart, as numba leaves them: fused, bits would depend on
    where the compiler's vectors end.
    """
    total, values = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    largest = np.float32(0)
    size = 4 if kind == _F32 else 2
    stop = start + len(out) // size
    for begin in range(start, stop, BLOCK):
        count = min(BLOCK, stop - begin)
        _widen(raws[0], kinds[0], begin, count, total)
        for k in range(count):
            total[k] = total[k] * weights[0]
        for i in range(1, len(raws)):
            _widen(raws[i], kinds[i], begin, count, values)
            for k in range(count):
                total[k] = total[k] + values[k] * weights[i]
        if kind == _F16:
            for k in range(count):
                largest = max(largest, abs(total[k]))
        _narrow(total, kind, out, begin - start, count)
    return largest


@_loop()
def _all_finite(raw, kind, start, stop):  # type: ignore[no-untyped-def]
    values = np.empty(BLOCK, np.float32)
    for begin in range(start, stop, BLOCK):
        count = min(BLOCK, stop - begin)
        _widen(raw, kind, begin, count, values)
        for k in range(count):
            if not np.isfinite(values[k]):
                return False
    return True
