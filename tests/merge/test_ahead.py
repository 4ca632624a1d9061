"""How far the measuring runs ahead: within the memory it is given, and with few open files."""

from concurrent.futures import Future
from pathlib import Path

import pytest

from studio.merge.ahead import MOST_TENSORS, Ahead
from studio.merge.gradient import Floats
from studio.merge.journal import TensorRecord
from studio.merge.plan import TensorJob
from studio.weights.header import TensorInfo


def jobs(*sizes: int) -> list[TensorJob]:
    found = []
    for number, size in enumerate(sizes):
        info = TensorInfo(f"t{number}", "U8", (size,), Path("a"), 0, size)
        found.append(TensorJob(f"t{number}", (size,), "U8", (info,), (0,)))
    return found


class Watched:
    """An Ahead that only notes which tensors it started and which it recorded, in order."""

    def __init__(self, wanted: list[TensorJob], budget: int) -> None:
        self.started: list[str] = []
        self.recorded: list[str] = []
        self.bytes = self.most_bytes = self.most = 0
        self.ahead = Ahead(wanted, budget, self._start, self._record)

    def _start(self, job: TensorJob) -> list[Future[Floats]]:
        self.started.append(job.name)
        self.bytes += job.source_bytes
        self.most_bytes = max(self.most_bytes, self.bytes)
        self.most = max(self.most, len(self.started) - len(self.recorded))
        return []

    def _record(self, job: TensorJob, pieces: list[Future[Floats]]) -> TensorRecord:
        self.recorded.append(job.name)
        self.bytes -= job.source_bytes
        return TensorRecord([], [float(len(self.recorded))])


@pytest.mark.parametrize("step", [1, 3, 100])
def test_every_tensor_is_started_and_recorded_once_in_order(step: int) -> None:
    wanted = jobs(*range(100))
    watched = Watched(wanted, 1000)
    for job in wanted[::step]:
        watched.ahead.weights(job)
    assert set(watched.ahead.all_records()) == {job.name for job in wanted}
    assert watched.started == watched.recorded == [job.name for job in wanted]
    assert watched.ahead.weights(wanted[7]) == [8.0]


def test_thousands_of_small_tensors_are_not_all_started_at_once() -> None:
    wanted = jobs(*[1] * 5000)
    watched = Watched(wanted, 1 << 30)
    watched.ahead.weights(wanted[0])
    assert len(watched.started) == MOST_TENSORS + 1
    watched.ahead.all_records()
    assert watched.most <= MOST_TENSORS + 1


def test_the_budget_holds_but_for_one_tensor() -> None:
    wanted = jobs(60, 60, 10, 500, 30, 30, 30, 30)
    watched = Watched(wanted, 100)
    watched.ahead.all_records()
    assert watched.most_bytes <= 600 and watched.most > 2
    assert Watched(wanted, 0).ahead.all_records().keys() == {job.name for job in wanted}


def test_no_tensors_no_records() -> None:
    assert Watched([], 100).ahead.all_records() == {}
