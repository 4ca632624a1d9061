"""The pass over the tensors: Gram matrix, coefficients, mix, one write.

A shard is filled block by block. Workers mix the tensors whose coefficients are known, and while
the disk is busy with that they measure the Gram matrices of those ahead; a few threads write past
the page cache. Each tensor is read twice, for its Gram matrix and for the mix: from disk the first
time, from the page cache the second. Nothing but a few blocks is held, so the process stays small
whatever the models' size.
"""

import queue
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from studio.errors import StudioError
from studio.merge import budget
from studio.merge.ahead import Ahead, Measured, Pieces
from studio.merge.blocks import Block, Segment, blocks_of
from studio.merge.coefficients import solve
from studio.merge.gradient import Floats
from studio.merge.inputs import Inputs
from studio.merge.journal import ShardRecord, TensorRecord
from studio.merge.layout import is_buffer
from studio.merge.plan import Plan, ShardJob, TensorJob
from studio.merge.tokens.aligned import aligned_record
from studio.merge.workers import FILL, MEASURE, Workers
from studio.weights import cpu_kernels
from studio.weights.dtypes import FLOATS
from studio.weights.elements import Elements, Flat, OpenFiles, span_of
from studio.weights.gram import NonFinite, from_difference_basis
from studio.weights.pages import prefetch
from studio.weights.values import all_finite
from studio.weights.writer import BLOCK_BYTES, Buffer, ShardFile, digest_of

WRITERS = 3  # one computes a checksum while the others wait for the disk
# A segment's sources and the weights of its groups of elements; None: it is to be copied.
Work = tuple[Inputs, Sequence[Sequence[float]]] | None


class Kernels(Protocol):
    """What computes: `studio.weights.cpu_kernels`, or `torch_kernels.OnDevice` for a GPU."""

    def prepare(self, kinds: tuple[str, ...], kind: str) -> None:
        """Do ahead what would delay the first Gram matrix and mix of these types."""

    def partial_gram(self, sources: Sequence[Elements]) -> Floats:
        """The Gram matrix of the sources' elements, in the difference basis."""

    def mix(self, sources: Sequence[Elements], weights: Sequence[float], out: Flat) -> None:
        """Fill `out` with the weighted sum of the sources' elements."""


class Mixer:
    """Carries out shard jobs of one plan; a context manager: it owns threads and open files."""

    def __init__(self, plan: Plan) -> None:
        if missing := [source.label for source in plan.sources if source.missing]:
            raise StudioError(f"{', '.join(missing)}: the weights are not here yet; download them")
        self._plan = plan
        self._kernels = _kernels(plan)
        self._files = OpenFiles()
        self._workers = Workers(plan.workers)
        for kinds, kind in _types(plan):  # while the caller gets ready
            self._workers.submit(MEASURE, self._kernels.prepare, kinds, kind)
        self._writer = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        self._reader = ThreadPoolExecutor(budget.READERS, thread_name_prefix="read")
        # The last one back is filled first: it may still be in a cache.
        self._buffers: queue.LifoQueue[Buffer] = queue.LifoQueue()
        for _ in range(plan.workers + budget.SPARE_BUFFERS):
            self._buffers.put(Buffer())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.end()
        for pool in (self._writer, self._reader):
            pool.shutdown(wait=True, cancel_futures=True)
        self._files.close()

    def write(
        self, shard: ShardJob, path: Path, on_block: Callable[[int, str], None]
    ) -> ShardRecord:
        """Make the shard's file, synced to disk.

        `on_block(bytes, tensor)` is called in this thread after each block that is on its way to
        the disk; an exception it raises ends the work. Raises StudioError for NaN or Inf in a
        source and for a full disk.
        """
        size = len(shard.header()) + shard.nbytes
        pending: deque[tuple[Block, Future[Future[bytes]]]] = deque()
        digests: list[bytes] = []

        def settle() -> None:
            block, filled = pending[0]  # and still pending if Ctrl-C ends the waiting
            digests.append(filled.result().result())
            pending.popleft()
            on_block(block.length, block.segments[-1].job.name if block.segments else "")

        ahead = self._ahead(shard.tensors)
        with ShardFile(path, size) as file:
            try:
                for block in blocks_of(shard, BLOCK_BYTES):
                    work = [self._work(segment, ahead) for segment in block.segments]
                    while self._buffers.empty():
                        settle()
                    buffer = self._buffers.get()
                    fill = self._workers.submit(FILL, self._fill, file, block, work, buffer)
                    pending.append((block, fill))
                while pending:
                    settle()
            finally:
                _abandon([filled for _, filled in pending])
            file.finish()
            return ShardRecord(path.name, size, digest_of(digests), ahead.all_records())

    def _work(self, segment: Segment, ahead: Ahead) -> Work:
        """What fills the segment."""
        job = segment.job
        return ahead.measured(job) if job.name in self._plan.row_of else None

    def _fill(
        self, file: ShardFile, block: Block, work: Sequence[Work], buffer: Buffer
    ) -> Future[bytes]:
        """Fill the buffer (in a worker) and hand it to the writer; returns the write to await."""
        memory = np.frombuffer(buffer, np.uint8)
        buffer[: len(block.header)] = block.header
        for segment, found in zip(block.segments, work, strict=True):
            out = Flat(segment.job.dtype, memory[segment.at : segment.at + segment.nbytes])
            if found is None:
                self._copy(segment, out)
                continue
            inputs, weights = found
            for part in inputs.parts(segment.start, segment.stop):
                at = part.at - segment.start
                room = out.part(at, at + part.spans[0].count)
                own = [weights[part.group][number] for number in part.sources]
                self._mix(segment.job, part.spans, own, room)
        return self._writer.submit(self._write, file, block, buffer)

    def _mix(
        self, job: TensorJob, sources: Sequence[Elements], weights: Sequence[float], out: Flat
    ) -> None:
        try:
            self._kernels.mix(sources, weights, out)
        except NonFinite as error:
            raise StudioError(
                f"{job.name}: {error}; merge with dtype bfloat16 or float32"
            ) from None

    def _copy(self, segment: Segment, out: Flat) -> None:
        job = segment.job
        with span_of(job.inputs[0]) as source:
            source.part(segment.start, segment.stop).read_into(out.data)
        if job.dtype in FLOATS and not is_buffer(job.name) and not all_finite(out):
            raise self._damaged(job, 0)

    def _damaged(self, job: TensorJob, index: int) -> StudioError:
        info, source = job.inputs[index], self._plan.sources[job.sources[index]]
        return StudioError(
            f"{info.file}: tensor {info.name} of {source.label} holds NaN, Inf or a value beyond "
            "float32; this checkpoint is damaged, get it anew"
        )

    def _write(self, file: ShardFile, block: Block, buffer: Buffer) -> bytes:
        try:
            return file.write(block.offset, buffer, block.length)
        finally:
            self._buffers.put(buffer)

    def measure(
        self, jobs: Sequence[TensorJob], on_tensor: Callable[[int], None]
    ) -> dict[str, TensorRecord]:
        """The Gram matrices of the jobs and the weights that follow; nothing is written.

        `on_tensor(bytes)` is called after each tensor with the bytes read for it.
        """
        ahead = self._ahead(jobs)
        for job in jobs:
            ahead.measured(job)
            on_tensor(job.source_bytes)
        return ahead.all_records()

    def _ahead(self, jobs: Sequence[TensorJob]) -> Ahead:
        mixed = [job for job in jobs if job.name in self._plan.row_of]
        return Ahead(mixed, self._start, self._record)

    def _start(self, job: TensorJob) -> tuple[Inputs, Pieces]:
        """Start the job's Gram matrix: futures of its pieces, to be added in order."""
        inputs = Inputs(job, self._files)
        self._reader.submit(self._prefetch, inputs)
        shape = (job.groups, len(job.inputs), len(job.inputs))
        pieces = [
            self._workers.submit(MEASURE, self._piece, job, inputs, start, shape)
            for start in range(0, max(job.measured, 1), job.piece)
        ]
        return inputs, pieces

    def _prefetch(self, inputs: Inputs) -> None:
        for span in inputs.to_prefetch():
            self._reader.submit(prefetch, span)

    def _piece(
        self, job: TensorJob, inputs: Inputs, start: int, shape: tuple[int, int, int]
    ) -> Floats:
        """Of each group (C, n, n), in the difference basis of the sources that have it."""
        found = np.zeros(shape)
        for part in inputs.parts(start, start + job.piece):
            try:
                square = self._kernels.partial_gram(part.spans)
            except NonFinite as error:
                assert error.source is not None
                raise self._damaged(job, part.sources[error.source]) from None
            found[part.group][np.ix_(part.sources, part.sources)] += square
        return found

    def _record(self, measured: Sequence[Measured]) -> dict[str, TensorRecord]:
        """Of each job the Gram matrix, from its pieces, and the weights that follow from it."""
        plan, found = self._plan, dict[str, TensorRecord]()
        totals = {job.name: np.sum([p.result() for p in ps], axis=0) for job, ps in measured}
        plain = [job for job, _ in measured if not job.runs]
        if plain:
            grams = from_difference_basis(np.array([totals[job.name][0] for job in plain]))
            weights = solve(plan.recipe, grams, self._settings(plain))[-1].weights
            rows = zip(plain, grams.tolist(), weights.tolist(), strict=True)
            found = {job.name: TensorRecord(gram, row) for job, gram, row in rows}
        for job, _ in measured:
            if job.runs:
                assert plan.alignment is not None
                settings, total = self._settings([job]), totals[job.name]
                found[job.name] = aligned_record(plan.recipe, total, settings, plan.alignment)
        return {job.name: found[job.name] for job, _ in measured}

    def _settings(self, jobs: Sequence[TensorJob]) -> list[dict[str, Floats]]:
        """Of every stage, for the tensors of these jobs."""
        rows = [self._plan.row_of[job.name] for job in jobs]
        return [{k: v[rows] for k, v in stage.items()} for stage in self._plan.settings]


def _kernels(plan: Plan) -> Kernels:
    """What computes for the plan's device."""
    if plan.options.device == "cpu":
        return cpu_kernels
    from studio.weights.torch_kernels import OnDevice

    return OnDevice(len(plan.sources), plan.options.device)


def _types(plan: Plan) -> set[tuple[tuple[str, ...], str]]:
    """Of the sources and the result, for all tensors that are mixed."""
    return {
        (tuple(info.dtype for info in job.inputs), job.dtype)
        for shard in plan.shards
        for job in shard.tensors
        if job.name in plan.row_of
    }


def _abandon(fills: Sequence[Future[Future[bytes]]]) -> None:
    """Wait until none of the fills can write any more, so that their file may be closed."""
    for filled in fills:
        if not filled.cancel() and filled.exception() is None:
            filled.result().exception()
