"""Running a loop over elements wherever they are: in memory, or in files.

What is in files is mapped: the kernel's cached copy is used as memory, and nothing is copied.
Mapping is a part of the machine code, so that no step of it waits for Python.
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from studio.errors import StudioError
from studio.weights.dtypes import ITEMSIZE
from studio.weights.elements import Bytes, Elements, Span
from studio.weights.loops import BLOCK
from studio.weights.machine_code import compiled, counting, declared, function, incoming, made_once
from studio.weights.pages import HUGE, HUGE_PAGES, POPULATE_READ

_TOGETHER = 48 << 20  # bytes of sources that the threads, one for each core, map at a time,
_ALONE = 12 << 20  # but no thread less than this: every map costs the others a moment
_WORTH_A_MAP = 256 << 10  # bytes; fewer are copied in less time
_NOWHERE = -1  # a descriptor of no file, and mmap's answer if it fails

_I32, _I64, _BYTES = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
_LOOP = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _I64, _BYTES])


class _Place(ctypes.Structure):
    """Where the elements of a source are, each of `width` bytes: from byte `start` of a file on.

    `base`, `length`: the map of a part of it, while there is one. In memory: `descriptor` is
    `_NOWHERE`, and `start` an address.
    """

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("descriptor", "start", "width", "base", "length")
    )


_DESCRIPTOR, _START, _WIDTH, _BASE, _LENGTH = range(len(_Place._fields_))
_PLACE = ir.LiteralStructType([_I64] * len(_Place._fields_))
_POINTERS = [kind.as_pointer() for kind in (_PLACE, _I64, _LOOP)]
_ARGUMENTS = [_I64, *_POINTERS[:2], _I64, _I64, _I32, _POINTERS[2], _BYTES]


def run(loop: int, sources: Sequence[Elements], state: int) -> None:
    """Run a loop of `loops` over all elements of the sources: a multiple of its lanes of each.

    `state`: the address of what the loop adds to. Raises StudioError if a file cannot be read.
    """
    count = len(sources)
    held: list[Bytes] = []
    places = (_Place * count)(*[_place(source, held) for source in sources])
    addresses = (ctypes.c_void_p * count)()
    numbers = (sources[0].count, _turn([place.width for place in places]), _advice())
    if failed := _running()(count, places, addresses, *numbers, loop, state):
        raise _failure(sources[failed - 1], ctypes.get_errno())


def prepare() -> None:
    """Make the machine code that `run` needs, which takes 10 ms the first time."""
    _running()


def most_mapped(widths: Sequence[int]) -> int:
    """The bytes, at most, that a thread maps at a time of sources with elements of these widths."""
    turn = _turn(widths)
    return sum(turn * width + -(turn * width) % HUGE + HUGE for width in widths)


def _place(source: Elements, held: list[Bytes]) -> _Place:
    """Where a source is: in its file, or in memory, where the few of a small one are read to.

    What is in memory is added to `held`, which keeps it there.
    """
    width = ITEMSIZE[source.dtype]
    if isinstance(source, Span) and source.nbytes >= _WORTH_A_MAP:
        return _Place(source.file.fileno(), source.start, width)
    held.append(source.data)
    return _Place(_NOWHERE, held[-1].ctypes.data, width)


def _turn(widths: Sequence[int]) -> int:
    """The elements whose maps are made together: whole blocks of the loops."""
    room = max(_TOGETHER // len(os.sched_getaffinity(0)), _ALONE)
    return max(room // sum(widths) // BLOCK, 1) * BLOCK


def _failure(source: Elements, reason: int) -> StudioError:
    assert isinstance(source, Span)
    if os.fstat(source.file.fileno()).st_size < source.start + source.nbytes:
        return source.failure(None)
    return source.failure(os.strerror(errno.EIO if reason == errno.EFAULT else reason))


@cache
def _advice() -> int:
    """What to tell the kernel about mapped pages: to have them ready, if it knows that advice.

    Otherwise a page that the disk refuses ends the process.
    """
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        try:
            page.madvise(POPULATE_READ)
        except OSError:
            return mmap.MADV_NORMAL
    return POPULATE_READ


@cache
def _running() -> Any:
    """The machine code as a function of Python's; it releases the GIL."""
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    numbers = (number, number, ctypes.c_int32)
    kind = ctypes.CFUNCTYPE(
        number, number, pointer, pointer, *numbers, pointer, pointer, use_errno=True
    )
    return kind(_running_code())


@made_once
def _running_code() -> int:
    """running(n, places, addresses, count, turn, advice, loop, state).

    Calls loop(addresses, elements, state) until `count` elements are done, at most `turn` at a
    time; `addresses`: where those of each of the n sources are, for the time being. Returns 0, or
    the number, from 1 on, of a source that cannot be read; `errno` says why.
    """
    builder, arguments = function(_I64, _ARGUMENTS)
    n, places, addresses, count, turn, advice, loop, state = arguments
    failed = builder.alloca(_I64)
    builder.store(_I64(0), failed)
    with counting(builder, count, turn) as done:
        left = builder.sub(count, done)
        now = builder.select(builder.icmp_signed("<", left, turn), left, turn)
        with counting(builder, n) as index:
            place, address = builder.gep(places, [index]), builder.gep(addresses, [index])
            start, width = (_field(builder, place, field) for field in (_START, _WIDTH))
            begin, size = builder.add(start, builder.mul(done, width)), builder.mul(now, width)
            builder.store(begin, address)
            with _if_in_file(builder, place):
                mapped, refused = _map(builder, place, (begin, size), advice)
                builder.store(mapped, address)
                with builder.if_then(refused):
                    builder.store(builder.add(index, _I64(1)), failed)
        fine = builder.icmp_signed("==", builder.load(failed), _I64(0))
        with builder.if_then(fine):
            builder.call(loop, [builder.bitcast(addresses, _BYTES.as_pointer()), now, state])
        with counting(builder, n) as index:
            place = builder.gep(places, [index])
            with _if_in_file(builder, place):
                _unmap(builder, place)
        with builder.if_then(builder.not_(fine)):
            builder.ret(builder.load(failed))
    builder.ret(_I64(0))
    return compiled(builder)


def _map(builder: Any, place: Any, part: tuple[Any, Any], advice: Any) -> tuple[Any, Any]:
    """Map a part of a file, from a byte on and so long, and have its pages ready.

    Returns its address, and whether the kernel refused.
    """
    (begin, size), descriptor = part, _field(builder, place, _DESCRIPTOR)
    skipped = builder.urem(begin, _I64(HUGE))
    whole = builder.add(builder.add(skipped, size), _I64(HUGE - 1))
    length = builder.sub(whole, builder.urem(whole, _I64(HUGE)))
    mmap_ = declared(builder, "mmap", _I64, _I64, _I64, _I32, _I32, _I32, _I64)
    how = (_I32(mmap.PROT_READ), _I32(mmap.MAP_SHARED), builder.trunc(descriptor, _I32))
    base = builder.call(mmap_, [_I64(0), length, *how, builder.sub(begin, skipped)])
    for value, field in ((base, _BASE), (length, _LENGTH)):
        builder.store(value, _address(builder, place, field))

    address = builder.add(base, skipped)
    before = builder.urem(begin, _I64(mmap.PAGESIZE))
    pages = (builder.sub(address, before), builder.add(size, before))
    advise = declared(builder, "madvise", _I32, _I64, _I64, _I32)
    unmapped = builder.block
    with builder.if_then(_is_made(builder, base)):
        builder.call(advise, [base, length, _I32(HUGE_PAGES)])
        advised, mapped = builder.call(advise, [*pages, advice]), builder.block
    answer = builder.phi(_I32)
    incoming(answer, (_I32(_NOWHERE), unmapped), (advised, mapped))
    return address, builder.icmp_signed("!=", answer, _I32(0))


def _unmap(builder: Any, place: Any) -> None:
    base, length = (_field(builder, place, field) for field in (_BASE, _LENGTH))
    with builder.if_then(_is_made(builder, base)):
        builder.call(declared(builder, "munmap", _I32, _I64, _I64), [base, length])


def _is_made(builder: Any, base: Any) -> Any:
    return builder.icmp_signed("!=", base, _I64(_NOWHERE))


def _if_in_file(builder: Any, place: Any) -> Any:
    """The context of what is only done for a source in a file."""
    descriptor = _field(builder, place, _DESCRIPTOR)
    return builder.if_then(builder.icmp_signed("!=", descriptor, _I64(_NOWHERE)))


def _field(builder: Any, place: Any, field: int) -> Any:
    return builder.load(_address(builder, place, field))


def _address(builder: Any, place: Any, field: int) -> Any:
    return builder.gep(place, [_I64(0), _I32(field)])
