"""Measuring ahead: the Gram matrices of the next tensors while the last ones are mixed."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from studio.merge.gradient import Floats
from studio.merge.journal import TensorRecord
from studio.merge.plan import TensorJob

MOST_TENSORS = 16  # ahead at a time: each keeps a file open for every source
Pieces = list[Future[Floats]]


class Ahead:
    """Tensors whose Gram matrices are being measured before they are needed.

    At least one is, and more, up to MOST_TENSORS, while their sources fit `budget` bytes.
    `start` begins to measure a tensor, `record` awaits it.
    """

    def __init__(
        self,
        jobs: Sequence[TensorJob],
        budget: int,
        start: Callable[[TensorJob], Pieces],
        record: Callable[[TensorJob, Pieces], TensorRecord],
    ) -> None:
        self._jobs, self._waiting, self._budget = jobs, deque(jobs), budget
        self._start, self._record = start, record
        self._started: deque[tuple[TensorJob, Pieces]] = deque()
        self.records: dict[str, TensorRecord] = {}

    def weights(self, job: TensorJob) -> list[float]:
        """The weights for one of the jobs, waiting for them if need be."""
        while job.name not in self.records:
            self._look_ahead()
            first, pieces = self._started.popleft()
            self._look_ahead()
            self.records[first.name] = self._record(first, pieces)
        return self.records[job.name].weights

    def all_records(self) -> dict[str, TensorRecord]:
        """The records of all the jobs, those without elements among them."""
        if self._jobs:
            self.weights(self._jobs[-1])
        return self.records

    def _look_ahead(self) -> None:
        used = sum(job.source_bytes for job, _ in self._started)
        while self._waiting and len(self._started) < MOST_TENSORS:
            if self._started and used + self._waiting[0].source_bytes > self._budget:
                break
            job = self._waiting.popleft()
            used += job.source_bytes
            self._started.append((job, self._start(job)))
