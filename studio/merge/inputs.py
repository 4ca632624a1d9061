"""The source tensors behind one tensor of the result, and which of their elements it is made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from studio.merge.plan import TensorJob
from studio.weights.dtypes import ITEMSIZE
from studio.weights.elements import OpenFiles, Span
from studio.weights.pages import PREFETCH_BYTES
from studio.weights.rows import runs_within


@dataclass(frozen=True, slots=True)
class Part:
    """Elements of a tensor that are the same mix of the same sources, from element `at` on.

    `sources`: the numbers of those that have them; `spans`: their elements; `group`: whose weights
    they take.
    """

    at: int
    sources: tuple[int, ...]
    spans: Sequence[Span]
    group: int


class Inputs:
    """The elements of a job's tensor in each of its sources.

    Raises StudioError if a file is gone.
    """

    def __init__(self, job: TensorJob, files: OpenFiles) -> None:
        self._job = job
        self._spans = [files.span(info) for info in job.inputs]

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """The elements start … stop - 1 of the result's tensor, those that there are, in parts.

        For an aligned tensor elements beyond the result's are those that are only measured.
        """
        job = self._job
        if not job.runs:
            whole = [span.part(start, stop) for span in self._spans]
            yield Part(start, tuple(range(len(whole))), whole, 0)
            return
        stop = min(stop, job.measured)
        runs = list(runs_within(job.runs, start // job.width, -(-stop // job.width)))
        for run in runs:
            begin, at = run.at * job.width, max(run.at * job.width, start)
            end = min((run.at + run.count) * job.width, stop)
            found = []
            for number in run.present:
                shift = run.starts[number] * job.width - begin
                found.append(self._spans[number].part(at + shift, end + shift))
            yield Part(at, run.present, found, run.group)

    def to_prefetch(self) -> Iterator[Span]:
        """In pieces, what seems to be still on the disk only."""
        for span in self._spans:
            step = PREFETCH_BYTES // ITEMSIZE[span.dtype]
            if not span.seems_cached():
                yield from (span.part(at, at + step) for at in range(0, span.count, step))
