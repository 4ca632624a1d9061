"""Running a loop over elements wherever they are: in memory, or in files.

What is in files is read in turns into a small room, where the loop finds it in the processor's
cache. The reading is a part of the machine code, so that no turn waits for Python.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from threading import local
from typing import Any

import numpy as np
from llvmlite import ir

from studio.weights.dtypes import ITEMSIZE
from studio.weights.elements import Elements, Span
from studio.weights.loops import BLOCK
from studio.weights.machine_code import blocks, compiled, declared, function, incoming, made_once

_ROOM_BYTES = 384 << 10  # of all sources, a turn: well within a core's L2 cache
_IN_MEMORY = -1  # instead of a file descriptor

_I32, _I64, _BYTES = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
_LOOP = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _I64, _BYTES])
_ARRAYS = [kind.as_pointer() for kind in (_I32, _I64, _I64, _BYTES)]
_ARGUMENTS = [_I64, *_ARRAYS, _I64, _I64, _LOOP.as_pointer(), _BYTES]
_rooms = local()


def stream(loop: int, sources: Sequence[Elements], state: int) -> None:
    """Run a loop of `loops` over all elements of the sources: a multiple of its lanes of each.

    `state`: the address of what the loop adds to. Raises StudioError if a file cannot be read.
    """
    count, widths = len(sources), [ITEMSIZE[source.dtype] for source in sources]
    turn = _turn(widths)
    room = _room(room_bytes(widths))
    places = [_place(source) for source in sources]
    ctypes.set_errno(0)
    failed = _streaming()(
        count,
        (ctypes.c_int32 * count)(*[descriptor for descriptor, _ in places]),
        (ctypes.c_int64 * count)(*[offset for _, offset in places]),
        (ctypes.c_int64 * count)(*widths),
        (ctypes.c_void_p * count)(*[room + turn * sum(widths[:n]) for n in range(count)]),
        sources[0].count,
        turn,
        loop,
        state,
    )
    if failed:
        source = sources[failed - 1]
        assert isinstance(source, Span)
        raise source.failure(os.strerror(ctypes.get_errno()) if ctypes.get_errno() else None)


def prepare() -> None:
    """Make the machine code that `stream` needs, which takes 10 ms the first time."""
    _streaming()


def room_bytes(widths: Sequence[int]) -> int:
    """What a thread reads sources to, whose elements are of these widths in bytes."""
    return _turn(widths) * sum(widths)


def _turn(widths: Sequence[int]) -> int:
    """The elements of a turn: whole blocks of the loops."""
    return max(_ROOM_BYTES // sum(widths) // BLOCK, 1) * BLOCK


def _place(source: Elements) -> tuple[int, int]:
    """A file descriptor and an offset, or `_IN_MEMORY` and an address."""
    if isinstance(source, Span):
        return source.file.descriptor, source.start
    return _IN_MEMORY, source.data.ctypes.data


def _room(size: int) -> int:
    """The address of this thread's room, of at least `size` bytes."""
    room = getattr(_rooms, "room", None)
    if room is None or len(room) < size:
        room = _rooms.room = np.empty(size, np.uint8)
    return int(room.ctypes.data)


@cache
def _streaming() -> Any:
    """The machine code as a function of Python's; it releases the GIL."""
    arguments = (
        [ctypes.c_int64] + [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 2
    )
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *arguments, use_errno=True)
    return kind(_streaming_code())


@made_once
def _streaming_code() -> int:
    """streaming(n, descriptors, offsets, widths, addresses, count, turn, loop, state).

    Calls loop(addresses, elements, state) until `count` elements are done, at most `turn` at a
    time. `addresses`: where to read the elements of each of the n sources to; of a source in memory
    the address is put there. Returns 0, or the number, from 1 on, of the source that could not be
    read: `errno` says why, or is left if the file has ended.
    """
    builder, (n, descriptors, offsets, widths, addresses, count, turn, loop, state) = function(
        _I32, _ARGUMENTS
    )
    entry, begin, source, ready, end = blocks(builder, "begin", "source", "ready", "end")
    names = ("memory", "file", "following", "failed")
    memory, file, following, failed = map(builder.append_basic_block, names)

    done = builder.phi(_I64)
    left = builder.sub(count, done)
    now = builder.select(builder.icmp_signed("<", left, turn), left, turn)
    builder.branch(source)

    builder.position_at_end(source)
    index = builder.phi(_I64)
    descriptor, offset, width = (
        builder.load(builder.gep(array, [index])) for array in (descriptors, offsets, widths)
    )
    address = builder.gep(addresses, [index])
    at, size = builder.add(offset, builder.mul(done, width)), builder.mul(now, width)
    builder.cbranch(builder.icmp_signed("<", descriptor, _I32(0)), memory, file)

    builder.position_at_end(memory)
    builder.store(builder.inttoptr(at, _BYTES), address)
    builder.branch(following)
    builder.position_at_end(file)
    _read(builder, (descriptor, at, size), builder.load(address), (following, failed))

    builder.position_at_end(following)
    other = builder.add(index, _I64(1))
    builder.cbranch(builder.icmp_signed("<", other, n), source, ready)
    builder.position_at_end(ready)
    builder.call(loop, [addresses, now, state])
    after = builder.add(done, now)
    builder.cbranch(builder.icmp_signed("<", after, count), begin, end)

    incoming(done, (_I64(0), entry), (after, ready))
    incoming(index, (_I64(0), begin), (other, following))
    builder.position_at_end(failed)
    builder.ret(builder.trunc(builder.add(index, _I64(1)), _I32))
    builder.position_at_end(end)
    builder.ret(_I32(0))
    return compiled(builder)


def _read(builder: Any, source: tuple[Any, ...], room: Any, ways: tuple[Any, Any]) -> None:
    """Read `size` bytes of a file: source = (descriptor, offset, size).

    ways: the blocks to go on in if all is read, and if that fails.
    """
    (descriptor, offset, size), (done, failed) = source, ways
    pread = declared(builder, "pread", _I64, _I32, _BYTES, _I64, _I64)
    before, again, more = blocks(builder, "again", "more")
    got = builder.phi(_I64)
    rest, at = builder.sub(size, got), builder.add(offset, got)
    count = builder.call(pread, [descriptor, builder.gep(room, [got]), rest, at])
    builder.cbranch(builder.icmp_signed("<", count, _I64(1)), failed, more)
    builder.position_at_end(more)
    so_far = builder.add(got, count)
    builder.cbranch(builder.icmp_signed("<", so_far, size), again, done)
    incoming(got, (_I64(0), before), (so_far, more))
