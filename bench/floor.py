"""The I/O floor: reads every byte of the inputs once, writes one output's size, computes nothing.

    python -m bench.floor READ WRITE THREADS OUT NBYTES FILE [FILE …]

READ    read     positioned reads into one reused buffer per thread
        map      mapped, copied piece by piece into one reused buffer per thread
        direct   reads past the page cache (of use only when that is cold)
WRITE   direct   past the page cache in blocks of 4 MiB, from huge pages
        direct2  the same from two threads
        buffered into the page cache, preallocated, then fsync
THREADS readers; the writer is one more thread beside them. Reading and writing overlap, and neither
waits for the other, which no merge can do: it is a floor.
"""

import ctypes
import mmap
import os
import queue
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

PAGE = 4096
WRITE_BLOCK = 4 << 20
READ_BLOCK = {"read": 512 << 10, "map": 512 << 10, "direct": 4 << 20}  # the first two fit into L2
SPAN = 64 << 20  # what a reader takes from the queue at a time


@dataclass(frozen=True)
class Span:
    """Bytes [start, stop) of a file, to be read by one thread."""

    file: str
    start: int
    stop: int


def spans(files: list[str]) -> list[Span]:
    """The files in pieces of at most 64 MiB, in order."""
    found = []
    for file in files:
        size = os.path.getsize(file)
        found += [Span(file, at, min(at + SPAN, size)) for at in range(0, size, SPAN)]
    return found


def read_span(span: Span, buffer: mmap.mmap, flags: int) -> int:
    """Positioned reads into the buffer. O_DIRECT in `flags` needs an aligned start and buffer."""
    fd = os.open(span.file, os.O_RDONLY | flags)
    try:
        view, at = memoryview(buffer), span.start
        while at < span.stop:
            want = len(view) if flags else min(len(view), span.stop - at)
            got = os.preadv(fd, [view[:want]], at)
            if got == 0:
                raise EOFError(f"{span.file} ended at byte {at} of {span.stop}")
            at += got
        return at - span.start
    finally:
        os.close(fd)


def copy_span(span: Span, buffer: mmap.mmap) -> int:
    """The span mapped (private, so that ctypes may take its address) and copied into the buffer."""
    length = span.stop - span.start
    fd = os.open(span.file, os.O_RDONLY)
    try:
        mapped = mmap.mmap(fd, length, access=mmap.ACCESS_COPY, offset=span.start)
    finally:
        os.close(fd)
    mapped.madvise(mmap.MADV_WILLNEED)
    exported = ctypes.c_char.from_buffer(mapped)
    target = ctypes.c_char.from_buffer(buffer)
    source, into = ctypes.addressof(exported), ctypes.addressof(target)
    for at in range(0, length, len(buffer)):
        ctypes.memmove(into, source + at, min(len(buffer), length - at))
    del exported, target  # a mapping with an exported address cannot be closed
    mapped.close()
    return length


def reader(how: str) -> Callable[[Span, mmap.mmap], int]:
    """What reads a span into a buffer in the way READ names; it returns the bytes read."""
    if how == "map":
        return copy_span
    flags = os.O_DIRECT if how == "direct" else 0
    return lambda span, buffer: read_span(span, buffer, flags)


def read_all(how: str, todo: "queue.SimpleQueue[Span]") -> int:
    """Takes spans until none is left. Returns the bytes read."""
    buffer = mmap.mmap(-1, READ_BLOCK[how])
    read, total = reader(how), 0
    while True:
        try:
            span = todo.get_nowait()
        except queue.Empty:
            return total
        total += read(span, buffer)


def write_blocks(fd: int, nbytes: int, first: int, step: int) -> None:
    """Writes blocks first, first + step, …; the last block is whole, the caller cuts the file."""
    block = mmap.mmap(-1, WRITE_BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        block.madvise(mmap.MADV_HUGEPAGE)  # as the engine's: the disk takes it in twice the speed
    block.write(os.urandom(WRITE_BLOCK))  # zeros might be stored as a hole
    for at in range(first * WRITE_BLOCK, nbytes, step * WRITE_BLOCK):
        if os.pwrite(fd, block, at) != WRITE_BLOCK:
            raise OSError(f"a block at byte {at} was written in part: is the disk full?")


def floor(how: tuple[str, str, int], out: str, nbytes: int, files: list[str]) -> int:
    """Reads the files and writes `nbytes` to `out`, at the same time. Returns the bytes read.

    OSError where a way is impossible (a file system without direct I/O, a full disk).
    """
    read, write, threads = how
    todo: queue.SimpleQueue[Span] = queue.SimpleQueue()
    for span in spans(files):
        todo.put(span)
    direct = os.O_DIRECT if write.startswith("direct") else 0
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | direct, 0o644)
    try:
        os.posix_fallocate(fd, 0, nbytes)
        writers = 2 if write == "direct2" else 1
        with ThreadPoolExecutor(threads + writers) as pool:
            written = [
                pool.submit(write_blocks, fd, nbytes, first, writers) for first in range(writers)
            ]
            counts = [pool.submit(read_all, read, todo) for _ in range(threads)]
            for task in written:
                task.result()
            total = sum(task.result() for task in counts)
        os.ftruncate(fd, nbytes)
        os.fsync(fd)
        return total
    finally:
        os.close(fd)


if __name__ == "__main__":
    read, write, threads, out, nbytes = sys.argv[1:6]
    print(floor((read, write, int(threads)), out, int(nbytes), sys.argv[6:]))
