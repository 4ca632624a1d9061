"""The source tensors behind one tensor of the result: the one place where elements become bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

from studio.merge.plan import TensorJob
from studio.weights import pages
from studio.weights.dtypes import ITEMSIZE
from studio.weights.pages import Flat
from studio.weights.rows import Run, runs_within


@dataclass(frozen=True, slots=True)
class Part:
    """Elements of a tensor that are the same mix of the same sources, from element `at` on.

    `sources`: the numbers of those that have them; `flats`: their elements; `group`: whose weights
    they take.
    """

    at: int
    sources: tuple[int, ...]
    flats: Sequence[Flat]
    group: int


class Inputs:
    """The elements of a job's tensor in each of its sources, mapped from their files.

    `keep`: what was looked at stays in the process's memory until `close`, and the second look
    finds it there; without, it is mapped anew for every look and the process stays small. Either
    way the second look reads from the page cache, not from the disk.
    """

    def __init__(self, job: TensorJob, *, keep: bool) -> None:
        self._job = job
        self._keep = keep
        self._kept: list[Flat] | None = None
        self._mapping = Lock()

    def elements(self, start: int, stop: int) -> list[Flat]:
        """The elements start … stop - 1 of each source, those that there are.

        They are there for as long as the list lives.
        """
        stop = min(stop, self._job.numel)
        return self._spans([(start, stop)] * len(self._job.inputs))

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """The elements start … stop - 1 of the result's tensor, those that there are, in parts.

        For an aligned tensor elements beyond the result's are those that are only measured.
        """
        job = self._job
        if not job.runs:
            yield Part(start, tuple(range(len(job.inputs))), self.elements(start, stop), 0)
            return
        stop = min(stop, job.measured)
        runs = list(runs_within(job.runs, start // job.width, -(-stop // job.width)))
        spans = [_span(runs, number) for number in range(len(job.inputs))]
        flats = self._spans([(first * job.width, last * job.width) for first, last in spans])
        for run in runs:
            begin, at = run.at * job.width, max(run.at * job.width, start)
            end = min((run.at + run.count) * job.width, stop)
            found = []
            for number in run.present:
                shift = (run.starts[number] - spans[number][0]) * job.width - begin
                found.append(flats[number].part(at + shift, end + shift))
            yield Part(at, run.present, found, run.group)

    def prefetch(self) -> None:
        """Let the disk begin to read what is not in the page cache."""
        for info in self._job.inputs:
            pages.prefetch(info)

    def close(self) -> None:
        """Let go of what was kept."""
        self._kept = None

    def _spans(self, spans: Sequence[tuple[int, int]]) -> list[Flat]:
        """Of each source its own range of elements."""
        if not self._keep:
            return self._mapped(spans)
        with self._mapping:  # in the worker that comes first, the others have work meanwhile
            if self._kept is None:
                whole = [(0, info.nbytes // ITEMSIZE[info.dtype]) for info in self._job.inputs]
                self._kept = self._mapped(whole)
            kept = self._kept
        return [flat.part(*span) for flat, span in zip(kept, spans, strict=True)]

    def _mapped(self, spans: Sequence[tuple[int, int]]) -> list[Flat]:
        pairs = zip(self._job.inputs, spans, strict=True)
        return [pages.map_flat(info, *span) for info, span in pairs]


def _span(runs: Sequence[Run], number: int) -> tuple[int, int]:
    """The rows of a source that hold all its rows of the runs."""
    own = [(run.starts[number], run.count) for run in runs if number in run.present]
    if not own:
        return 0, 0
    return min(start for start, _ in own), max(start + count for start, count in own)
