"""Run a plan: shards, companions, and only then the final name."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.durable import sync_folder
from studio.errors import StudioError
from studio.merge.companions import write_companions
from studio.merge.geometry.grams import Grams
from studio.merge.gradient import Floats
from studio.merge.journal import NAME as JOURNAL
from studio.merge.journal import Journal, ShardRecord, plan_of
from studio.merge.mixing import Mixer
from studio.merge.output import partial_folder
from studio.merge.plan import Plan


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a merge is: bytes of the result that are done, of all, and the tensor at work.

    `resumed` of the done bytes were found finished from an earlier run.
    """

    done: int
    total: int
    resumed: int
    tensor: str
    seconds: float


def merge(
    plan: Plan, out: Path, on_progress: Callable[[Progress], None], grams: Grams | None = None
) -> Path:
    """Merge into the folder `out` and return it.

    The geometry of the sources, found on the way, is kept in `grams` for previews.
    Work goes on in `out.partial`, which becomes `out` when it is complete; after a crash or an
    exception, Ctrl-C included, the same call resumes there, shard by shard.
    Raises StudioError if another merge writes there, the disk is full, or a source is damaged.
    """
    _require_device(plan.options.device)
    if (out / JOURNAL).exists():
        _finish_publishing(plan, out)
        return out
    partial = partial_folder(out)
    started = time.monotonic()
    # The mixer first: it makes its loops while the journal is opened.
    with Mixer(plan) as mixer, Journal(partial, plan.fingerprint) as journal:
        states = _states(plan)
        _write_shards(plan, mixer, partial, journal, on_progress)
        records = list(journal.finished([shard.file for shard in plan.shards]).values())
        _check_complete(plan, partial, records)
        _refuse_changed_sources(plan, states)
        write_companions(plan, partial, records, time.monotonic() - started)
        if grams is not None:
            grams.store(plan, _gram(plan, records))
        _publish(partial, out)
    return out


def _gram(plan: Plan, records: Sequence[ShardRecord]) -> Floats:
    """The Gram matrices (T, n, n) of the tensors in `plan.layout`."""
    found = {name: tensor.gram for record in records for name, tensor in record.tensors.items()}
    return np.array([found[name] for name in plan.layout.names])


def _require_device(device: str) -> None:
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise StudioError(f"device {device}: torch finds no CUDA device; use --device cpu")


def _write_shards(
    plan: Plan,
    mixer: Mixer,
    partial: Path,
    journal: Journal,
    on_progress: Callable[[Progress], None],
) -> None:
    finished = journal.finished([shard.file for shard in plan.shards])
    resumed = sum(record.size for record in finished.values())
    done, started, total = resumed, time.monotonic(), plan.bytes_written

    def report(count: int, tensor: str) -> None:
        nonlocal done
        done += count
        on_progress(Progress(done, total, resumed, tensor, time.monotonic() - started))

    report(0, "")
    for shard in plan.shards:
        if shard.file not in finished:
            journal.add(mixer.write(shard, partial / shard.file, report))


def _check_complete(plan: Plan, partial: Path, records: list[ShardRecord]) -> None:
    """Nothing gets the final name unless plan, journal, sizes and headers agree."""
    recorded = {record.file: record for record in records}
    for shard in plan.shards:
        header = shard.header()
        path = partial / shard.file
        if shard.file not in recorded or not _holds(path, header, len(header) + shard.nbytes):
            raise StudioError(
                f"{path}: the shard on disk is not the one that was written; delete {partial} and "
                "merge again"
            )


def _states(plan: Plan) -> list[list[tuple[str, int, int, int]]]:
    try:
        return [source.state() for source in plan.sources]
    except OSError as error:
        raise StudioError(
            f"{error.filename}: cannot be read any more ({error.strerror}); start again"
        ) from error


def _refuse_changed_sources(plan: Plan, before: list[list[tuple[str, int, int, int]]]) -> None:
    for source, then, now in zip(plan.sources, before, _states(plan), strict=True):
        if then != now:
            raise StudioError(
                f"{source.path} has changed during the merge: half of the result would be of the "
                "old weights, half of the new; run the same command again"
            )


def _holds(path: Path, header: bytes, size: int) -> bool:
    """Whether the file is there, `size` bytes long and begins with `header`."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _publish(partial: Path, out: Path) -> None:
    """Give the complete, synced folder its final name.

    The journal goes last, so a crash loses nothing.
    """
    try:
        os.rename(partial, out.resolve())  # replaces an empty folder, refuses any other
    except OSError as error:
        raise StudioError(
            f"{out}: the model is complete but cannot take this name ({error.strerror}); make "
            f"room for it and run the same command again, or take it from {partial}"
        ) from error
    _remove_journal(out)


def _finish_publishing(plan: Plan, out: Path) -> None:
    """The last step of a merge that was killed after the rename: all else was done before it."""
    if plan_of(out / JOURNAL) != plan.fingerprint:
        raise StudioError(
            f"{out} exists and holds the result of another recipe; choose another output"
        )
    _remove_journal(out)


def _remove_journal(out: Path) -> None:
    (out / JOURNAL).unlink(missing_ok=True)
    sync_folder(out)
    sync_folder(out.resolve().parent)
