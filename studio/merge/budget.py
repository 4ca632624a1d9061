"""The memory of a merging process: what it needs, and what is left to keep sources in."""

from studio.merge.plan import PIECE_BYTES, Plan
from studio.weights.dtypes import ITEMSIZE
from studio.weights.writer import BLOCK_BYTES

SPARE_BUFFERS = 4  # output blocks on their way to the disk, besides one for each worker
_PROCESS = 128 << 20  # the program and its libraries, without torch
_TORCH = 240 << 20
_GOAL = 480_000_000  # bytes of the whole process, unless the user allows more


def needed(plan: Plan) -> int:
    """Bytes of the whole process that keeps no sources: they stay in the page cache."""
    files = [file for source in plan.sources for file in source.files]
    torch = plan.options.device != "cpu" or any(file.suffix == ".bin" for file in files)
    widest = max(ITEMSIZE[info.dtype] for s in plan.sources for info in s.tensors.values())
    to_mix = BLOCK_BYTES // ITEMSIZE[plan.dtype] * len(plan.sources) * widest
    at_a_time = max(PIECE_BYTES, to_mix)
    buffers = (plan.workers + SPARE_BUFFERS) * BLOCK_BYTES
    return _PROCESS + (_TORCH if torch else 0) + buffers + plan.workers * at_a_time


def for_sources(plan: Plan) -> int:
    """Bytes of sources to keep between their two looks: as asked for, or what is left of 480 MB."""
    if plan.options.memory is not None:
        return plan.options.memory
    return max(_GOAL - needed(plan), 0)


def peak(plan: Plan) -> int:
    """Bytes that the merging process will take at most."""
    return needed(plan) + min(for_sources(plan), plan.bytes_read)
