"""Measuring ahead: the Gram matrices of the next tensors while the last ones are mixed."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from studio.merge.gradient import Floats
from studio.merge.inputs import Inputs
from studio.merge.journal import TensorRecord
from studio.merge.plan import TensorJob

MOST_TENSORS = 16  # ahead at a time, and kept: each of these holds a file open for every source
WORTH_KEEPING = 1 << 20  # bytes; below, mapping a tensor twice costs nothing
Pieces = list[Future[Floats]]


class Ahead:
    """Tensors whose Gram matrices are being measured before they are needed.

    At least one is, and more while the sources of all those that are not yet `finish`ed fit
    `budget` bytes: they are kept in memory from the measuring to the end.
    `start(job, keep)` begins to measure a tensor, `record` awaits it, `close` begins to let go of
    its sources.
    """

    def __init__(
        self,
        jobs: Sequence[TensorJob],
        budget: int,
        start: Callable[[TensorJob, bool], tuple[Inputs, Pieces]],
        record: Callable[[TensorJob, Pieces], TensorRecord],
        close: Callable[[Inputs], Future[None]],
    ) -> None:
        self._jobs, self._waiting, self._budget = jobs, deque(jobs), budget
        self._start, self._record, self._close = start, record, close
        self._started: deque[tuple[TensorJob, Pieces]] = deque()
        self._kept: dict[str, int] = {}
        self._inputs: dict[str, Inputs] = {}
        self._closing: dict[str, Future[None]] = {}
        self.records: dict[str, TensorRecord] = {}

    def measured(self, job: TensorJob) -> tuple[Inputs, list[list[float]]]:
        """The sources and weights of a job that is not finished, waiting for them if need be."""
        self._await(job)
        return self._inputs[job.name], self.records[job.name].by_group

    def finish(self, job: TensorJob) -> None:
        """Let go of the sources of a job that is mixed; its record stays."""
        if inputs := self._inputs.pop(job.name, None):
            self._closing[job.name] = self._close(inputs)

    def all_records(self) -> dict[str, TensorRecord]:
        """The records of all the jobs, those without elements among them."""
        if self._jobs:
            self._await(self._jobs[-1])
        return self.records

    def _await(self, job: TensorJob) -> None:
        while job.name not in self.records:
            self._look_ahead()
            first, pieces = self._started.popleft()
            self._look_ahead()
            self.records[first.name] = self._record(first, pieces)

    def _look_ahead(self) -> None:
        while self._waiting and len(self._started) < MOST_TENSORS:
            job = self._waiting[0]
            keep = job.source_bytes >= WORTH_KEEPING
            if keep and not self._has_room(job):
                if self._started:
                    break
                keep = False
            if keep:
                self._kept[job.name] = job.source_bytes
            self._waiting.popleft()
            self._inputs[job.name], pieces = self._start(job, keep)
            self._started.append((job, pieces))

    def _has_room(self, job: TensorJob) -> bool:
        for name in [name for name, closing in self._closing.items() if closing.done()]:
            del self._closing[name]
            self._kept.pop(name, None)
        used = sum(self._kept.values())
        return used + job.source_bytes <= self._budget and len(self._kept) < MOST_TENSORS
