"""The computing threads: order by rank, results and failures, and the end."""

from threading import Event, current_thread

import pytest

from studio.merge.workers import FILL, MEASURE, Workers


def test_what_the_disk_waits_for_goes_first_and_equals_in_their_order() -> None:
    workers, begun, may_go = Workers(1), Event(), Event()
    done: list[str] = []
    workers.submit(MEASURE, lambda: (begun.set(), may_go.wait(10)))
    assert begun.wait(10)
    for name, rank in (("m1", MEASURE), ("f1", FILL), ("m2", MEASURE), ("f2", FILL)):
        last = workers.submit(rank, done.append, name)
        if name == "m2":
            waited = last
    may_go.set()
    waited.result(10)
    assert done == ["f1", "f2", "m1", "m2"]
    workers.end()


def test_results_and_failures_reach_whoever_waits() -> None:
    workers = Workers(2)
    assert workers.submit(FILL, pow, 3, 4).result(10) == 81
    with pytest.raises(ZeroDivisionError):
        workers.submit(FILL, divmod, 1, 0).result(10)
    assert workers.submit(MEASURE, lambda: current_thread().name).result(10).startswith("mix-")
    workers.end()


def test_the_end_waits_for_what_has_begun_and_leaves_the_rest_undone() -> None:
    workers, begun, may_go = Workers(1), Event(), Event()
    first = workers.submit(MEASURE, lambda: (begun.set(), may_go.wait(10))[1])
    assert begun.wait(10)
    others = [workers.submit(MEASURE, lambda: None) for _ in range(3)]
    others[0].cancel()
    may_go.set()
    workers.end()
    assert first.result(0) is True
    assert not any(other.done() and not other.cancelled() for other in others)


def test_a_cancelled_task_is_not_done() -> None:
    workers, begun, may_go = Workers(1), Event(), Event()
    workers.submit(FILL, lambda: (begun.set(), may_go.wait(10)))
    assert begun.wait(10)
    done: list[int] = []
    assert workers.submit(FILL, done.append, 1).cancel()
    last = workers.submit(FILL, done.append, 2)
    may_go.set()
    last.result(10)
    assert done == [2]
    workers.end()
