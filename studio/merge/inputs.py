"""The source tensors behind one tensor of the result: the one place where elements become bytes."""

from studio.merge.plan import TensorJob
from studio.weights import pages
from studio.weights.pages import Flat


class Inputs:
    """The elements of a job's tensor in each of its sources, mapped from their files.

    `keep`: what was looked at stays in the process's memory while this object lives, and the second
    look finds it there; without, it is mapped anew for every look and the process stays small.
    Either way the second look reads from the page cache, not from the disk.
    """

    def __init__(self, job: TensorJob, *, keep: bool) -> None:
        self._job = job
        self._kept = self._mapped(0, job.numel) if keep else None

    def elements(self, start: int, stop: int) -> list[Flat]:
        """The elements start … stop - 1 of each source, those that there are.

        They are there for as long as the list lives.
        """
        if self._kept is None:
            return self._mapped(start, min(stop, self._job.numel))
        return [flat.part(start, stop) for flat in self._kept]

    def prefetch(self) -> None:
        """Let the disk begin to read what is not in the page cache."""
        for info in self._job.inputs:
            pages.prefetch(info)

    def _mapped(self, start: int, stop: int) -> list[Flat]:
        return [pages.map_flat(info, start, stop) for info in self._job.inputs]
