"""Measuring ahead: the Gram matrices of the next tensors while the last ones are mixed."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from studio.merge.gradient import Floats
from studio.merge.inputs import Inputs
from studio.merge.journal import TensorRecord
from studio.merge.plan import TensorJob

MOST_TENSORS = 16  # ahead at a time
MOST_BYTES = 512 << 20  # of sources, not counting the last tensor: they wait in the page cache
Pieces = list[Future[Floats]]
Measured = tuple[TensorJob, Pieces]


class Ahead:
    """Tensors whose Gram matrices are being measured before they are needed.

    `start(job)` begins to measure a tensor; `record(measured)` awaits some and says what follows
    for each: always the same, with whichever others it is asked for.
    """

    def __init__(
        self,
        jobs: Sequence[TensorJob],
        start: Callable[[TensorJob], tuple[Inputs, Pieces]],
        record: Callable[[Sequence[Measured]], Mapping[str, TensorRecord]],
    ) -> None:
        self._jobs, self._waiting = jobs, deque(jobs)
        self._start, self._record = start, record
        self._started: deque[Measured] = deque()
        self._inputs: dict[str, Inputs] = {}
        self.records: dict[str, TensorRecord] = {}

    def measured(self, job: TensorJob) -> tuple[Inputs, list[list[float]]]:
        """The sources and weights of a job, waiting for them if need be."""
        self._await(job)
        return self._inputs[job.name], self.records[job.name].by_group

    def all_records(self) -> dict[str, TensorRecord]:
        """The records of all the jobs, those without elements among them."""
        if self._jobs:
            self._await(self._jobs[-1])
        return self.records

    def _await(self, job: TensorJob) -> None:
        while job.name not in self.records:
            self._look_ahead()
            ready = [self._started.popleft()]
            while self._started and all(piece.done() for piece in self._started[0][1]):
                ready.append(self._started.popleft())
            self._look_ahead()
            self.records |= self._record(ready)

    def _look_ahead(self) -> None:
        while self._waiting and len(self._started) < MOST_TENSORS:
            if sum(job.source_bytes for job, _ in self._started) > MOST_BYTES:
                break
            job = self._waiting.popleft()
            self._inputs[job.name], pieces = self._start(job)
            self._started.append((job, pieces))
