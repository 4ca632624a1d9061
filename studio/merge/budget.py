"""The memory of a merging process."""

from studio.merge.plan import PIECE_BYTES, Plan
from studio.weights.dtypes import ITEMSIZE
from studio.weights.mapped_loops import most_mapped
from studio.weights.pages import HUGE, PREFETCH_BYTES
from studio.weights.writer import BLOCK_BYTES

SPARE_BUFFERS = 4  # output blocks on their way to the disk, besides one for each worker
READERS = 3  # wait for the disk, which likes to be asked for several things at a time
_PROCESS = 130 << 20  # the program and its libraries, without torch
_TORCH = 190 << 20


def peak(plan: Plan) -> int:
    """Bytes that the merging process will take at most: it holds only parts of the sources."""
    on_cpu = plan.options.device == "cpu"
    files = [file for source in plan.sources for file in source.files]
    torch = not on_cpu or any(file.suffix == ".bin" for file in files)
    widest = max(ITEMSIZE[info.dtype] for s in plan.sources for info in s.tensors.values())
    widths = [widest] * len(plan.sources)
    to_mix = BLOCK_BYTES // ITEMSIZE[plan.dtype] * sum(widths)
    at_a_time = most_mapped(widths) if on_cpu else max(PIECE_BYTES, to_mix)
    computing = plan.workers * (BLOCK_BYTES + at_a_time) + SPARE_BUFFERS * BLOCK_BYTES
    reading = READERS * (PREFETCH_BYTES + HUGE)
    return _PROCESS + (_TORCH if torch else 0) + computing + reading
