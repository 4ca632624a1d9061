"""How far the measuring runs ahead: within limits."""

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from studio.merge.ahead import MOST_BYTES, MOST_TENSORS, Ahead, Measured, Pieces
from studio.merge.gradient import Floats
from studio.merge.inputs import Inputs
from studio.merge.journal import TensorRecord
from studio.merge.plan import TensorJob
from studio.weights.elements import OpenFiles
from studio.weights.header import TensorInfo

MB = 1 << 20


def jobs(folder: Path, *sizes: int) -> list[TensorJob]:
    (folder / "a").touch()
    found = []
    for number, size in enumerate(sizes):
        info = TensorInfo(f"t{number}", "U8", (size,), folder / "a", 0, size)
        found.append(TensorJob(f"t{number}", (size,), "U8", (info,), (0,)))
    return found


class Watched:
    """An Ahead that only notes which tensors it started and recorded, in order.

    `done`: whether what is started is measured at once.
    """

    def __init__(self, wanted: list[TensorJob], *, done: bool = False) -> None:
        self.done = done
        self.started: list[str] = []
        self.recorded: list[str] = []
        self.together: list[int] = []
        self.most = 0
        self.ahead = Ahead(wanted, self._start, self._record)

    def _start(self, job: TensorJob) -> tuple[Inputs, Pieces]:
        self.started.append(job.name)
        self.most = max(self.most, len(self.started) - len(self.recorded))
        piece: Future[Floats] = Future()
        if self.done:
            piece.set_result(np.zeros(()))
        with closing(OpenFiles()) as files:
            return Inputs(job, files), [piece]

    def _record(self, measured: Sequence[Measured]) -> dict[str, TensorRecord]:
        self.together.append(len(measured))
        found = {}
        for job, _ in measured:
            self.recorded.append(job.name)
            found[job.name] = TensorRecord([], [float(len(self.recorded))])
        return found

    def use(self, job: TensorJob) -> list[float]:
        """The weights of a job."""
        _, (weights,) = self.ahead.measured(job)
        return weights


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_every_tensor_is_started_and_recorded_once_in_order(
    tmp_path: Path, step: int, done: bool
) -> None:
    wanted = jobs(tmp_path, *range(0, 100 * MB, MB))
    watched = Watched(wanted, done=done)
    found = [watched.ahead.measured(job)[1][0] for job in wanted[::step]]
    assert found == [[float(number + 1)] for number in range(0, 100, step)]
    assert list(watched.ahead.all_records()) == [job.name for job in wanted]
    assert watched.started == watched.recorded == [job.name for job in wanted]


def test_thousands_of_small_tensors_are_not_all_started_at_once(tmp_path: Path) -> None:
    wanted = jobs(tmp_path, *[MB] * 5000)
    watched = Watched(wanted)
    for job in wanted:
        watched.use(job)
    assert watched.most == MOST_TENSORS + 1


def test_the_one_after_a_large_tensor_is_measured_ahead_but_no_more(tmp_path: Path) -> None:
    wanted = jobs(tmp_path, *[MOST_BYTES + 1] * 4)
    watched = Watched(wanted)
    watched.ahead.measured(wanted[0])
    assert watched.started == ["t0", "t1"]
    for job in wanted:
        watched.use(job)
    assert watched.most == 2


def test_small_tensors_between_large_ones_do_not_keep_the_next_from_being_measured(
    tmp_path: Path,
) -> None:
    wanted = jobs(tmp_path, 2 * MOST_BYTES, 10, 10, 2 * MOST_BYTES, 10)
    watched = Watched(wanted)
    watched.ahead.measured(wanted[0])
    assert watched.started == ["t0", "t1", "t2", "t3"]


def test_what_is_measured_is_recorded_together_and_what_is_not_is_not_awaited(
    tmp_path: Path,
) -> None:
    wanted = jobs(tmp_path, *[MB] * 5)
    for done, together in ((True, [5]), (False, [1])):
        watched = Watched(wanted, done=done)
        watched.ahead.measured(wanted[0])
        assert watched.together == together


def test_no_tensors_no_records() -> None:
    assert Watched([]).ahead.all_records() == {}
