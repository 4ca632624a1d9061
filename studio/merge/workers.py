"""The threads that compute: what the disk waits for goes before what is done ahead."""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from threading import Thread
from typing import Any, TypeVar

FILL, MEASURE = 0, 1  # the ranks of tasks: a lower one is begun first
_LAST = 2
T = TypeVar("T")


class Workers:
    """Threads that carry out tasks by rank, those of one rank in the order of their submission."""

    def __init__(self, threads: int) -> None:
        self._numbers = count()
        self._tasks: queue.PriorityQueue[tuple[int, int, Callable[[], None]]]
        self._tasks = queue.PriorityQueue()
        self._ended = False
        # Daemons: an interruption that comes before anybody can call `end` must not hang the exit.
        self._threads = [
            Thread(target=self._work, name=f"mix-{n}", daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, rank: int, call: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have `call(*arguments)` done by a thread."""
        future: Future[T] = Future()

        def task() -> None:
            if self._ended or not future.set_running_or_notify_cancel():
                return
            try:
                result = call(*arguments)
            except BaseException as error:  # for whoever waits for the result
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tasks.put((rank, next(self._numbers), task))
        return future

    def end(self) -> None:
        """Wait for the tasks that have begun; the others are left undone."""
        self._ended = True
        for _ in self._threads:
            self._tasks.put((_LAST, next(self._numbers), lambda: None))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        rank = FILL
        while rank != _LAST:
            rank, _, task = self._tasks.get()
            task()
