"""The two inner loops as machine code, made for the dtypes at hand and for this processor.

A loop goes over the bytes of all its sources at once, LANES elements a turn: it widens them to fp32
in registers and asks for the bytes a little ahead, so that it runs as fast as memory gives them.
Making one takes 10 to 20 ms, once a process for each combination of dtypes; calls release the GIL.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, wraps
from threading import Lock
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir

from studio.weights.dtypes import ITEMSIZE

LANES = 16  # elements a turn: as many as the widest registers hold in fp32
BLOCK = 1024  # elements whose products are added in fp32
AHEAD = 1024  # bytes to ask for before they are needed
_CACHE_LINE = 64

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_HALF, _SINGLE, _DOUBLE = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_BYTES = ir.IntType(8).as_pointer()
_STORED = {"BF16": _I16, "F16": _HALF, "F32": _SINGLE, "F64": _DOUBLE}
_engines: list[Any] = []  # own the machine code


def _made_once(make: Callable[..., Callable[..., Any]]) -> Callable[..., Callable[..., Any]]:
    """`functools.cache`, but who wants what another thread is making waits for that."""
    cached, making = cache(make), Lock()

    @wraps(make)
    def made(*wanted: Any) -> Callable[..., Any]:
        with making:
            return cached(*wanted)

    return made


@_made_once
def gram_loop(kinds: tuple[str, ...], lanes: int) -> Callable[..., None]:
    """loop(sources, count, total): add the inner products of the sources to `total`.

    `sources`: address of the addresses of each source's bytes; `count`: of elements, a multiple of
    `lanes`, not 0; `total`: address of doubles, one for each pair (0, 0), (1, 0), (1, 1), (2, 0) …
    in the difference basis.
    """
    pairs = [(i, j) for i in range(len(kinds)) for j in range(i + 1)]
    builder, (sources, count, total) = _function(
        ir.VoidType(), [_BYTES.as_pointer(), _I64, _DOUBLE.as_pointer()]
    )
    starts = _elements(builder, sources, len(kinds))
    entry, block, turn, after, end = _blocks(builder, "block", "turn", "after", "end")

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

    _incoming(begin, (_I64(0), entry), (limit, after))
    _incoming(index, (begin, block), (following, turn))
    for held, vector in zip(sums, added, strict=True):
        _incoming(held, (_splat(_SINGLE, 0.0, lanes), block), (vector, turn))
    builder.position_at_end(end)
    builder.ret_void()
    return _compiled(builder, None)


@_made_once
def mix_loop(kinds: tuple[str, ...], kind: str, lanes: int) -> Callable[..., int]:
    """loop(sources, weights, count, out): write the weighted sums; the largest magnitude's bits.

    `sources` and `count` as in `gram_loop`; `weights`: address of an fp32 for each source; `out`:
    address of room for `count` elements of `kind`. Returns the bits of the largest magnitude in
    fp32, which are greater for infinity and NaN than for any number. Multiplication and addition
    round apart: were they fused, bits would depend on how the compiler orders them.
    """
    builder, (sources, weights, count, out) = _function(
        _I32, [_BYTES.as_pointer(), _SINGLE.as_pointer(), _I64, _BYTES]
    )
    starts = _elements(builder, sources, len(kinds))
    factors = [_spread(builder, w, lanes) for w in _elements(builder, weights, len(kinds))]
    entry, turn, end = _blocks(builder, "turn", "end")

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

    _incoming(index, (_I64(0), entry), (following, turn))
    _incoming(largest, (_splat(_I32, 0, lanes), entry), (larger, turn))
    builder.position_at_end(end)
    builder.ret(_largest(builder, larger))
    return _compiled(builder, ctypes.c_uint32)


def _load(builder: Any, start: Any, index: Any, kind: str, lanes: int) -> Any:
    """The elements from `index` on, `lanes` of them, as fp32."""
    size = ITEMSIZE[kind]
    address = builder.gep(start, [builder.mul(index, _I64(size))])
    for ahead in range(AHEAD, AHEAD + lanes * size, _CACHE_LINE):
        _prefetch(builder, builder.gep(address, [_I64(ahead)]))
    stored = ir.VectorType(_STORED[kind], lanes)
    value = builder.load(builder.bitcast(address, stored.as_pointer()), align=1)
    single = ir.VectorType(_SINGLE, lanes)
    if kind == "BF16":
        wide = builder.zext(value, ir.VectorType(_I32, lanes))
        return builder.bitcast(builder.shl(wide, _splat(_I32, 16, lanes)), single)
    widths = {"F16": builder.fpext, "F64": builder.fptrunc}
    return widths[kind](value, single) if kind in widths else value


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


def _function(returned: Any, arguments: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """A builder at the start of a new function "loop", and the function's arguments."""
    function = ir.Function(ir.Module(), ir.FunctionType(returned, arguments), "loop")
    return ir.IRBuilder(function.append_basic_block("entry")), function.args


def _blocks(builder: Any, *names: str) -> tuple[Any, ...]:
    """The block at hand and new ones; it leads to the first of them, where the builder is now."""
    here = builder.block
    made = [builder.function.append_basic_block(name) for name in names]
    builder.branch(made[0])
    builder.position_at_end(made[0])
    return here, *made


def _incoming(phi: Any, *values: tuple[Any, Any]) -> None:
    for value, block in values:
        phi.add_incoming(value, block)


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
    function = _intrinsic(
        builder, f"llvm.vector.reduce.fadd.v{vector.type.count}f32", _SINGLE, _SINGLE, vector.type
    )
    return builder.call(function, [_SINGLE(0.0), vector], fastmath=("reassoc",))


def _largest(builder: Any, vector: Any) -> Any:
    name = f"llvm.vector.reduce.umax.v{vector.type.count}i32"
    return builder.call(_intrinsic(builder, name, _I32, vector.type), [vector])


def _prefetch(builder: Any, address: Any) -> None:
    """Ask for a cache line; an address beyond the data does no harm."""
    function = _intrinsic(builder, "llvm.prefetch.p0", ir.VoidType(), _BYTES, _I32, _I32, _I32)
    to_read, keep, data = _I32(0), _I32(3), _I32(1)
    builder.call(function, [address, to_read, keep, data])


def _intrinsic(builder: Any, name: str, returned: Any, *arguments: Any) -> Any:
    declared = builder.module.globals.get(name)
    return declared or ir.Function(builder.module, ir.FunctionType(returned, arguments), name)


def _compiled(builder: Any, returned: Any) -> Callable[..., Any]:
    """The function as machine code; all its arguments are addresses or counts."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )
    module = llvm.parse_assembly(str(builder.module))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _engines.append(engine)
    arguments = [ctypes.c_void_p] * len(builder.function.args)
    return ctypes.CFUNCTYPE(returned, *arguments)(engine.get_function_address("loop"))
