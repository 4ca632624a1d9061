"""The two inner loops as machine code, made for the dtypes at hand and for this processor.

A loop goes over the bytes of all its sources at once, LANES elements a turn, and widens them to
fp32 in registers. Making one takes 10 to 20 ms, once a process for each combination of dtypes. Both
are made to be called as loop(sources, count, state): `sources` is the address of the addresses of
each source's bytes, `count` the number of elements, a multiple of the loop's lanes and not 0.
"""

import ctypes
from typing import Any

from llvmlite import ir

from studio.weights.dtypes import ITEMSIZE
from studio.weights.machine_code import blocks, compiled, declared, function, incoming, made_once

LANES = 16  # elements a turn: as many as the widest registers hold in fp32
BLOCK = 1024  # elements whose products are added in fp32
_AHEAD = 2048  # bytes to fetch ahead: processors do that by themselves, but not over page ends

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_HALF, _SINGLE, _DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_BYTES = ir.IntType(8).as_pointer()
_STORED = {"BF16": _I16, "F16": _HALF, "F32": _SINGLE, "F64": _DOUBLE}


class MixState(ctypes.Structure):
    """The state of a `mix_loop`: what it needs, and what it has found so far.

    `weights`: address of an fp32 for each source; `out`: address of the room for the next elements;
    `largest`: the bits in fp32 of the largest magnitude so far, which are greater for infinity and
    NaN than for any number.
    """

    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("largest", ctypes.c_uint32),
    )


_STATE = ir.LiteralStructType([_SINGLE.as_pointer(), _BYTES, _I32])


@made_once
def gram_loop(kinds: tuple[str, ...], lanes: int) -> int:
    """The address of a loop that adds the inner products of the sources to its state.

    The state: doubles, one for each pair (0, 0), (1, 0), (1, 1), (2, 0) … in the difference basis.
    """
    pairs = [(i, j) for i in range(len(kinds)) for j in range(i + 1)]
    builder, (sources, count, total) = function(
        ir.VoidType(), [_BYTES.as_pointer(), _I64, _DOUBLE.as_pointer()]
    )
    starts = _elements(builder, sources, len(kinds))
    entry, block, turn, after, end = blocks(builder, "block", "turn", "after", "end")

    begin = builder.phi(_I64)
    limit = builder.add(begin, _I64(BLOCK))
    limit = builder.select(builder.icmp_signed("<", limit, count), limit, count)
    builder.branch(turn)

    builder.position_at_end(turn)
    index = builder.phi(_I64)
    sums = [builder.phi(ir.VectorType(_SINGLE, lanes)) for _ in pairs]
    values = [
        _load(builder, start, index, kind, lanes) for start, kind in zip(starts, kinds, strict=True)
    ]
    values[1:] = [builder.fsub(value, values[0]) for value in values[1:]]
    fused = ("contract",)
    products = [builder.fmul(values[i], values[j], flags=fused) for i, j in pairs]
    added = [builder.fadd(s, p, flags=fused) for s, p in zip(sums, products, strict=True)]
    following = builder.add(index, _I64(lanes))
    builder.cbranch(builder.icmp_signed("<", following, limit), turn, after)

    builder.position_at_end(after)
    for place, vector in enumerate(added):
        address = builder.gep(total, [_I64(place)])
        part = builder.fpext(_sum(builder, vector), _DOUBLE)
        builder.store(builder.fadd(builder.load(address), part), address)
    builder.cbranch(builder.icmp_signed("<", limit, count), block, end)

    incoming(begin, (_I64(0), entry), (limit, after))
    incoming(index, (begin, block), (following, turn))
    for held, vector in zip(sums, added, strict=True):
        incoming(held, (_splat(_SINGLE, 0.0, lanes), block), (vector, turn))
    builder.position_at_end(end)
    builder.ret_void()
    return compiled(builder)


@made_once
def mix_loop(kinds: tuple[str, ...], kind: str, lanes: int) -> int:
    """The address of a loop that writes the weighted sums, rounded to `kind`; see `MixState`.

    Multiplication and addition round apart: were they fused, bits would depend on how the compiler
    orders them.
    """
    builder, (sources, count, state) = function(
        ir.VoidType(), [_BYTES.as_pointer(), _I64, _STATE.as_pointer()]
    )
    weights, room, most = (builder.gep(state, [_I64(0), _I32(place)]) for place in range(3))
    starts, out = _elements(builder, sources, len(kinds)), builder.load(room)
    before = _spread(builder, builder.load(most), lanes)
    factors = [
        _spread(builder, weight, lanes)
        for weight in _elements(builder, builder.load(weights), len(kinds))
    ]
    entry, turn, end = blocks(builder, "turn", "end")

    index = builder.phi(_I64)
    largest = builder.phi(ir.VectorType(_I32, lanes))
    values = [
        _load(builder, start, index, each, lanes) for start, each in zip(starts, kinds, strict=True)
    ]
    products = [builder.fmul(value, w) for value, w in zip(values, factors, strict=True)]
    total = products[0]
    for product in products[1:]:
        total = builder.fadd(total, product)
    _store(builder, total, (out, index), kind)
    bits = builder.bitcast(total, largest.type)
    magnitude = builder.and_(bits, _splat(_I32, 0x7FFFFFFF, lanes))
    larger = builder.select(builder.icmp_unsigned(">", magnitude, largest), magnitude, largest)
    following = builder.add(index, _I64(lanes))
    builder.cbranch(builder.icmp_signed("<", following, count), turn, end)

    incoming(index, (_I64(0), entry), (following, turn))
    incoming(largest, (before, entry), (larger, turn))
    builder.position_at_end(end)
    builder.store(builder.gep(out, [builder.mul(count, _I64(ITEMSIZE[kind]))]), room)
    builder.store(_largest(builder, larger), most)
    builder.ret_void()
    return compiled(builder)


def _load(builder: Any, start: Any, index: Any, kind: str, lanes: int) -> Any:
    """The elements from `index` on, `lanes` of them, as fp32."""
    address = builder.gep(start, [builder.mul(index, _I64(ITEMSIZE[kind]))])
    _fetch(builder, builder.gep(address, [_I64(_AHEAD)]))
    stored = ir.VectorType(_STORED[kind], lanes)
    value = builder.load(builder.bitcast(address, stored.as_pointer()), align=1)
    single = ir.VectorType(_SINGLE, lanes)
    if kind == "BF16":
        wide = builder.zext(value, ir.VectorType(_I32, lanes))
        return builder.bitcast(builder.shl(wide, _splat(_I32, 16, lanes)), single)
    widths = {"F16": builder.fpext, "F64": builder.fptrunc}
    return widths[kind](value, single) if kind in widths else value


def _fetch(builder: Any, address: Any) -> None:
    """Have what is at an address brought into the caches; nothing if there is no memory there."""
    arguments = (_BYTES, _I32, _I32, _I32)
    fetch = declared(builder, "llvm.prefetch.p0i8", ir.VoidType(), *arguments)
    read, nearest, data = _I32(0), _I32(3), _I32(1)
    builder.call(fetch, [address, read, nearest, data])


def _store(builder: Any, value: Any, place: tuple[Any, Any], kind: str) -> None:
    """Round fp32 to `kind`, to nearest and ties to even, and write it at (out, index)."""
    (out, index), lanes = place, value.type.count
    if kind == "BF16":
        bits = builder.bitcast(value, ir.VectorType(_I32, lanes))
        sixteen = _splat(_I32, 16, lanes)
        odd = builder.and_(builder.lshr(bits, sixteen), _splat(_I32, 1, lanes))
        bits = builder.add(builder.add(bits, _splat(_I32, 0x7FFF, lanes)), odd)
        value = builder.trunc(builder.lshr(bits, sixteen), ir.VectorType(_I16, lanes))
    elif kind == "F16":
        value = builder.fptrunc(value, ir.VectorType(_HALF, lanes))
    address = builder.gep(out, [builder.mul(index, _I64(ITEMSIZE[kind]))])
    builder.store(value, builder.bitcast(address, value.type.as_pointer()), align=1)


def _elements(builder: Any, array: Any, count: int) -> list[Any]:
    return [builder.load(builder.gep(array, [_I64(place)])) for place in range(count)]


def _splat(kind: Any, value: float, lanes: int) -> Any:
    return ir.Constant(ir.VectorType(kind, lanes), [value] * lanes)


def _spread(builder: Any, value: Any, lanes: int) -> Any:
    """The value in every lane."""
    nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, value, _I32(0))
    return builder.shuffle_vector(first, nothing, _splat(_I32, 0, lanes))


def _sum(builder: Any, vector: Any) -> Any:
    name = f"llvm.vector.reduce.fadd.v{vector.type.count}f32"
    add = declared(builder, name, _SINGLE, _SINGLE, vector.type)
    return builder.call(add, [_SINGLE(0.0), vector], fastmath=("reassoc",))


def _largest(builder: Any, vector: Any) -> Any:
    name = f"llvm.vector.reduce.umax.v{vector.type.count}i32"
    return builder.call(declared(builder, name, _I32, vector.type), [vector])
