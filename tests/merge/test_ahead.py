"""How far the measuring runs ahead: within the memory it is given, and with few open files."""

from concurrent.futures import Future
from pathlib import Path

import pytest

from studio.merge.ahead import MOST_TENSORS, WORTH_KEEPING, Ahead, Pieces
from studio.merge.inputs import Inputs
from studio.merge.journal import TensorRecord
from studio.merge.plan import TensorJob
from studio.weights.header import TensorInfo

MB = WORTH_KEEPING


def jobs(*sizes: int) -> list[TensorJob]:
    found = []
    for number, size in enumerate(sizes):
        info = TensorInfo(f"t{number}", "U8", (size,), Path("a"), 0, size)
        found.append(TensorJob(f"t{number}", (size,), "U8", (info,), (0,)))
    return found


class Watched:
    """An Ahead that only notes which tensors it started, kept and recorded, in order.

    `closes`: whether what was finished is ever let go of.
    """

    def __init__(self, wanted: list[TensorJob], budget: int, *, closes: bool = True) -> None:
        self.closes = closes
        self.started: list[str] = []
        self.recorded: list[str] = []
        self.kept: dict[str, int] = {}
        self.most_bytes = self.most_kept = self.most = 0
        self.ahead = Ahead(wanted, budget, self._start, self._record, self._close)

    def _start(self, job: TensorJob, keep: bool) -> tuple[Inputs, Pieces]:
        self.started.append(job.name)
        if keep:
            self.kept[job.name] = job.source_bytes
        self.most_bytes = max(self.most_bytes, sum(self.kept.values()))
        self.most_kept = max(self.most_kept, len(self.kept))
        self.most = max(self.most, len(self.started) - len(self.recorded))
        return Inputs(job, keep=False), []

    def _record(self, job: TensorJob, pieces: Pieces) -> TensorRecord:
        self.recorded.append(job.name)
        return TensorRecord([], [float(len(self.recorded))])

    def _close(self, inputs: Inputs) -> Future[None]:
        closing: Future[None] = Future()
        if self.closes:
            closing.set_result(None)
        return closing

    def use(self, job: TensorJob) -> list[float]:
        """Measure a job and mix it."""
        _, (weights,) = self.ahead.measured(job)
        if self.closes:
            self.kept.pop(job.name, None)
        self.ahead.finish(job)
        return weights


@pytest.mark.parametrize("step", [1, 3, 100])
def test_every_tensor_is_started_and_recorded_once_in_order(step: int) -> None:
    wanted = jobs(*range(0, 100 * MB, MB))
    watched = Watched(wanted, 1000 * MB)
    found = [watched.ahead.measured(job)[1][0] for job in wanted[::step]]
    assert found == [[float(number + 1)] for number in range(0, 100, step)]
    assert set(watched.ahead.all_records()) == {job.name for job in wanted}
    assert watched.started == watched.recorded == [job.name for job in wanted]


def test_thousands_of_small_tensors_are_not_all_started_at_once_and_none_is_kept() -> None:
    wanted = jobs(*[MB - 1] * 5000)
    watched = Watched(wanted, 1 << 40)
    for job in wanted:
        watched.use(job)
    assert watched.most == MOST_TENSORS + 1 and watched.most_kept == 0


def test_many_large_tensors_are_kept_but_no_more_than_files_may_be_open() -> None:
    wanted = jobs(*[MB] * 100)
    watched = Watched(wanted, 1 << 40)
    for job in wanted:
        watched.use(job)
    assert watched.most_kept == MOST_TENSORS


def test_what_is_kept_fits_the_budget_until_it_is_finished() -> None:
    wanted = jobs(*(size * MB for size in (60, 40, 10, 500, 30, 30, 30, 30)))
    watched = Watched(wanted, 100 * MB)
    watched.ahead.measured(wanted[0])
    assert watched.started == ["t0", "t1"] and set(watched.kept) == {"t0", "t1"}
    for job in wanted:
        watched.use(job)
    assert watched.most_bytes == 100 * MB and watched.recorded[-1] == "t7"


def test_without_a_budget_one_tensor_is_measured_ahead_and_none_is_kept() -> None:
    wanted = jobs(MB, MB, MB)
    watched = Watched(wanted, 0)
    for job in wanted:
        watched.use(job)
    assert watched.most_kept == 0 and watched.most == 2
    assert set(watched.ahead.all_records()) == {"t0", "t1", "t2"}


def test_no_tensors_no_records() -> None:
    assert Watched([], 100).ahead.all_records() == {}


def test_sources_count_until_they_are_let_go_of() -> None:
    wanted = jobs(*[2 * MB] * 20)
    watched = Watched(wanted, 5 * MB, closes=False)
    for job in wanted:
        watched.use(job)
    assert len(watched.recorded) == 20 and watched.most_bytes == 4 * MB
