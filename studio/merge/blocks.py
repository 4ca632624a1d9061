"""A shard's file as a row of blocks, each to be filled and written on its own."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from studio.merge.plan import ShardJob, TensorJob
from studio.weights.dtypes import ITEMSIZE


@dataclass(frozen=True, slots=True)
class Segment:
    """Elements `start` … `stop` - 1 of a tensor, to be put `at` a byte of a block."""

    job: TensorJob
    start: int
    stop: int
    at: int

    @property
    def nbytes(self) -> int:
        """The size in the result's dtype."""
        return (self.stop - self.start) * ITEMSIZE[self.job.dtype]


@dataclass(frozen=True, slots=True)
class Block:
    """`length` bytes of a shard from `offset` on: a part of the header, then segments."""

    offset: int
    length: int
    header: bytes
    segments: tuple[Segment, ...]


def blocks_of(shard: ShardJob, block_bytes: int) -> Iterator[Block]:
    """The shard's file in blocks of `block_bytes`, in order; the last one may be shorter."""
    header = shard.header()
    size = len(header) + shard.nbytes
    spans = deque(_spans(shard, len(header)))
    for offset in range(0, size, block_bytes):
        end = min(offset + block_bytes, size)
        while spans and spans[0][1] <= offset:
            spans.popleft()
        segments = []
        for begin, stop, job in spans:
            if begin >= end:
                break
            width = ITEMSIZE[job.dtype]
            first, last = max(begin, offset), min(stop, end)
            if first < last:
                segments.append(
                    Segment(job, (first - begin) // width, (last - begin) // width, first - offset)
                )
        yield Block(offset, end - offset, header[offset:end], tuple(segments))


def _spans(shard: ShardJob, at: int) -> Iterator[tuple[int, int, TensorJob]]:
    """The bytes of the file that each tensor fills."""
    for job in shard.tensors:
        yield at, at + job.nbytes, job
        at += job.nbytes
