"""The pass over the tensors: Gram matrix, coefficients, mix, one write.

A shard is filled block by block. Workers measure the Gram matrices of the tensors ahead while
others mix those whose coefficients are known, and one thread writes. The pages of a source stay
mapped from the first visit (Gram) to the second (mix) where they fit the memory budget; of larger
tensors they are given back at once and come from the page cache again.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from studio.errors import StudioError
from studio.merge.ahead import Ahead, Pieces
from studio.merge.coefficients import solve
from studio.merge.gradient import Floats
from studio.merge.journal import ShardRecord, TensorRecord
from studio.merge.layout import is_buffer
from studio.merge.plan import Plan, ShardJob, TensorJob
from studio.weights import pages
from studio.weights.dtypes import FLOATS, ITEMSIZE, TORCH
from studio.weights.gram import NonFinite, Scratch, from_difference_basis, partial_gram
from studio.weights.mix import mix
from studio.weights.writer import BLOCK_BYTES, Buffer, ShardFile, digest_of

PIECE = 4 << 20  # elements of a tensor that one worker measures at a time
SPARE_BUFFERS = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """Elements `start` … `stop` of a tensor, to be put `at` a byte of a block."""

    job: TensorJob
    start: int
    stop: int
    at: int


@dataclass(frozen=True, slots=True)
class Block:
    """`length` bytes of a shard from `offset` on: a part of the header, then segments."""

    offset: int
    length: int
    header: bytes
    segments: tuple[Segment, ...]


def blocks_of(shard: ShardJob) -> Iterator[Block]:
    """The shard's file in blocks of BLOCK_BYTES, in order."""
    header = shard.header()
    size = len(header) + shard.nbytes
    spans = deque(_spans(shard, len(header)))
    for offset in range(0, size, BLOCK_BYTES):
        end = min(offset + BLOCK_BYTES, size)
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
    for job in shard.tensors:
        yield at, at + job.nbytes, job
        at += job.nbytes


class Mixer:
    """Carries out shard jobs of one plan; a context manager that owns the worker threads."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self._plan = plan
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="mix")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._local = threading.local()
        self._buffers: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        for _ in range(workers + SPARE_BUFFERS):
            self._buffers.put(Buffer())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._workers, self._writer, self._reader):
            pool.shutdown(wait=True, cancel_futures=True)

    def write(
        self, shard: ShardJob, path: Path, on_block: Callable[[int, str], None]
    ) -> ShardRecord:
        """Make the shard's file, synced to disk.

        `on_block(bytes, tensor)` is called in this thread after each block that is on its way to
        the disk; an exception it raises ends the work. Raises StudioError for NaN or Inf in a
        source and for a full disk.
        """
        size = len(shard.header()) + shard.nbytes
        ahead = self._ahead(shard.tensors)
        pending: deque[tuple[Block, Future[Future[bytes]]]] = deque()
        digests: list[bytes] = []

        def settle() -> None:
            block, filled = pending[0]  # and still pending if Ctrl-C ends the waiting
            digests.append(filled.result().result())
            pending.popleft()
            on_block(block.length, block.segments[-1].job.name if block.segments else "")

        with ShardFile(path, size) as file:
            try:
                for block in blocks_of(shard):
                    mixed = [s.job for s in block.segments if s.job.name in self._plan.row_of]
                    weights = {job.name: ahead.weights(job) for job in mixed}
                    while self._buffers.empty():
                        settle()
                    work = (self._buffers.get(), weights)
                    pending.append((block, self._workers.submit(self._fill, file, block, work)))
                while pending:
                    settle()
            finally:
                _abandon([filled for _, filled in pending])
            file.finish()
        return ShardRecord(path.name, size, digest_of(digests), ahead.all_records())

    def _fill(
        self,
        file: ShardFile,
        block: Block,
        work: tuple[Buffer, Mapping[str, Sequence[float]]],
    ) -> Future[bytes]:
        """Fill one buffer (in a worker) and hand it to the writer; returns the write to await."""
        buffer, weights = work
        memory = torch.frombuffer(buffer, dtype=torch.uint8)
        buffer[: len(block.header)] = block.header
        for segment in block.segments:
            job = segment.job
            length = (segment.stop - segment.start) * ITEMSIZE[job.dtype]
            out = memory[segment.at : segment.at + length].view(TORCH[job.dtype])
            parts = [
                self._part(job, i, segment.start, segment.stop) for i in range(len(job.inputs))
            ]
            if job.name in weights:
                self._mix(segment, parts, (weights[job.name], out))
            else:
                self._copy(job, parts[0], out)
        return self._writer.submit(self._write, file, block, buffer)

    def _copy(self, job: TensorJob, part: torch.Tensor, out: torch.Tensor) -> None:
        if job.dtype in FLOATS and not is_buffer(job.name) and not part.isfinite().all():
            raise self._damaged(job, 0)
        out.copy_(part)

    def _damaged(self, job: TensorJob, index: int) -> StudioError:
        info, source = job.inputs[index], self._plan.sources[job.sources[index]]
        return StudioError(
            f"{info.file}: tensor {info.name} of {source.label} holds NaN, Inf or a value beyond "
            "float32; this checkpoint is damaged, get it anew"
        )

    def _mix(
        self,
        segment: Segment,
        parts: Sequence[torch.Tensor],
        work: tuple[Sequence[float], torch.Tensor],
    ) -> None:
        try:
            mix(parts, work[0], work[1], self._scratch(len(parts)))
        except NonFinite as error:
            raise StudioError(
                f"{segment.job.name}: {error}; merge with dtype bfloat16 or float32"
            ) from None

    def _write(self, file: ShardFile, block: Block, buffer: Buffer) -> bytes:
        try:
            return file.write(block.offset, buffer, block.length)
        finally:
            self._buffers.put(buffer)

    def _part(self, job: TensorJob, index: int, start: int, stop: int) -> torch.Tensor:
        """Elements `start` … `stop` of an input, mapped from its file."""
        source = self._plan.sources[job.sources[index]]
        return source.load(job.inputs[index].name).view(-1)[start:stop]

    def _scratch(self, count: int) -> Scratch:
        """This worker's buffers for `count` sources."""
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch(count, self._plan.options.device)
        scratch: Scratch = self._local.scratch
        return scratch

    def measure(
        self, jobs: Sequence[TensorJob], on_tensor: Callable[[int], None]
    ) -> dict[str, TensorRecord]:
        """The Gram matrices of the jobs and the weights that follow; nothing is written.

        `on_tensor(bytes)` is called after each tensor with the bytes read for it.
        """
        ahead = self._ahead(jobs)
        for job in jobs:
            ahead.weights(job)
            on_tensor(job.source_bytes)
        return ahead.all_records()

    def _ahead(self, jobs: Sequence[TensorJob]) -> Ahead:
        mixed = [job for job in jobs if job.name in self._plan.row_of]
        return Ahead(mixed, self._plan.options.memory, self._start, self._record)

    def _start(self, job: TensorJob) -> list[Future[Floats]]:
        """Start the job's Gram matrix: futures of its pieces, to be added in order."""
        whole = [self._part(job, i, 0, job.numel) for i in range(len(job.inputs))]
        for tensor in whole:
            self._reader.submit(pages.prefetch, tensor)
        starts = range(0, max(job.numel, 1), PIECE)
        return [self._workers.submit(self._piece, whole, start) for start in starts]

    def _piece(self, whole: Sequence[torch.Tensor], start: int) -> Floats:
        stop = min(start + PIECE, whole[0].numel())
        found = partial_gram(whole, start, stop, self._scratch(len(whole)))
        for tensor in whole:
            pages.release(tensor.view(-1)[start:stop])
        return found

    def _record(self, job: TensorJob, pieces: Pieces) -> TensorRecord:
        """The job's Gram matrix, from its measured pieces, and the weights that follow from it."""
        try:
            gram = from_difference_basis(np.sum([piece.result() for piece in pieces], axis=0))
        except NonFinite as error:
            assert error.source is not None
            raise self._damaged(job, error.source) from None
        plan, row = self._plan, self._plan.row_of[job.name]
        settings = [{k: v[row : row + 1] for k, v in s.items()} for s in plan.settings]
        weights = solve(plan.recipe, gram[None], settings)[-1].weights[0]
        return TensorRecord(gram.tolist(), weights.tolist())


def _abandon(fills: Sequence[Future[Future[bytes]]]) -> None:
    """Wait until none of the fills can write any more, so that their file may be closed."""
    for filled in fills:
        if not filled.cancel() and filled.exception() is None:
            filled.result().exception()
