"""The record of what a merge has finished, by which a killed merge goes on where it was.

The journal lies in the folder of the unfinished result. Its first line names the plan, each
further line a finished shard; a shard's line is written only after the shard itself is safe on
disk. Lines from the first torn one on count as not written. The open file is also the lock: one
merge at a time writes to a folder.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from studio.errors import StudioError

NAME = "merge-journal.jsonl"


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """What was found and used for one mixed tensor: Gram matrix (n, n) and weights (n,).

    `groups`: of an aligned tensor, the weights of each group of tokens, (C, n); then `weights` are
    those of the largest group, and `gram` is of sources filled in like inputs.
    """

    gram: list[list[float]]
    weights: list[float]
    groups: list[list[float]] | None = None

    @property
    def by_group(self) -> list[list[float]]:
        """The weights of each group of elements; a tensor that is not aligned has one."""
        return self.groups or [self.weights]


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A finished shard: file name, size in bytes, digest of its bytes, its mixed tensors."""

    file: str
    size: int
    digest: str
    tensors: dict[str, TensorRecord]


class Journal:
    """The locked journal of a folder; a context manager.

    `records`: the shards that are finished, empty when the folder held another plan's work.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self._path = folder / NAME
        self.records: list[ShardRecord] = []

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StudioError(
                f"{error.filename}: cannot be made ({error.strerror}); choose another output"
            ) from error
        try:
            self._lock()
            self._restore()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudioError(
                f"{self._folder}: another merge is writing here; wait for it or choose another "
                "output"
            ) from None
        # The merge that held the lock may have finished and moved the folder away meanwhile.
        if not self._path.exists() or not os.path.samestat(os.fstat(self._file), self._path.stat()):
            raise StudioError(f"{self._folder}: another merge has just finished here")

    def _restore(self) -> None:
        content = _read(self._path.read_bytes())
        if content.plan != self._fingerprint:
            self._start_afresh()
            return
        self.records = content.records
        os.ftruncate(self._file, content.size)
        os.lseek(self._file, 0, os.SEEK_END)

    def _start_afresh(self) -> None:
        """Drop what another recipe, source or version has left: it must never be resumed."""
        left = [path for path in self._folder.iterdir() if path.name != NAME]
        if folders := [path for path in left if path.is_dir() and not path.is_symlink()]:
            raise StudioError(
                f"{folders[0]}: no merge has made this folder, but {self._folder} must be emptied "
                "first; move it away or choose another output"
            )
        for path in left:
            path.unlink()
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._append({"plan": self._fingerprint})

    def add(self, record: ShardRecord) -> None:
        """Note a shard that is complete and synced."""
        self._append(_fields(record))
        self.records.append(record)

    def _append(self, entry: dict[str, object]) -> None:
        data = (json.dumps(entry, default=_fields) + "\n").encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]  # a full disk may take a part
            os.fsync(self._file)
        except OSError as error:
            raise StudioError(
                f"{self._path}: cannot be written ({error.strerror}); make room, then run the "
                "same command again: the finished shards are kept"
            ) from error

    def finished(self, files: Sequence[str]) -> dict[str, ShardRecord]:
        """The records of those files that are still there in their full size."""
        sizes = {path.name: path.stat().st_size for path in self._folder.iterdir()}
        known = {record.file: record for record in self.records}
        return {f: known[f] for f in files if f in known and sizes.get(f) == known[f].size}


def plan_of(path: Path) -> str | None:
    """The fingerprint of the plan that the journal at `path` belongs to; None if it is torn."""
    return _read(path.read_bytes()).plan


@dataclass(slots=True)
class _Content:
    """A journal's plan, finished shards, and bytes before the first line that is torn or no entry.

    `plan` is None where the first line is such a one.
    """

    plan: str | None = None
    records: list[ShardRecord] = field(default_factory=list)
    size: int = 0


def _read(data: bytes) -> _Content:
    found = _Content()
    for line in data.split(b"\n")[:-1]:  # behind the last newline is nothing, or a torn line
        try:
            entry = json.loads(line)
            if found.plan is None:
                found.plan = str(entry["plan"])
            else:
                found.records.append(_record(entry))
        except (ValueError, KeyError, TypeError):
            break
        found.size += len(line) + 1
    return found


def _fields(record: ShardRecord | TensorRecord) -> dict[str, Any]:
    """As `_record` takes them. `dataclasses.asdict` would copy every number."""
    return {each.name: getattr(record, each.name) for each in fields(record)}


def _record(entry: dict[str, Any]) -> ShardRecord:
    tensors = {name: TensorRecord(**values) for name, values in dict(entry["tensors"]).items()}
    return ShardRecord(**entry | {"tensors": tensors})
