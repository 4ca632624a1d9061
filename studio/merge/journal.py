"""The record of what a merge has finished, by which a killed merge goes on where it was.

The journal lies in the folder of the unfinished result. Its first line names the plan, each
further line a finished shard; a shard's line is written only after the shard itself is safe on
disk. A torn last line counts as not written. The open file is also the lock: one merge at a time
writes to a folder.
"""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from studio.errors import StudioError

NAME = "merge-journal.jsonl"


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """What was found and used for one mixed tensor: Gram matrix (n, n) and weights (n,)."""

    gram: list[list[float]]
    weights: list[float]


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
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._lock()
            self._restore()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        with open(self._file, closefd=False, encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")
        whole = lines[:-1]  # behind the last newline is nothing, or a torn line
        if not whole or json.loads(whole[0]).get("plan") != self._fingerprint:
            self._start_afresh()
            return
        self.records = [_record(line) for line in whole[1:]]
        os.ftruncate(self._file, sum(len(line.encode()) + 1 for line in whole))
        os.lseek(self._file, 0, os.SEEK_END)

    def _start_afresh(self) -> None:
        """Drop what another recipe, source or version has left: it must never be resumed."""
        for path in self._folder.iterdir():
            if path.name != NAME:
                path.unlink()
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._append({"plan": self._fingerprint})

    def add(self, record: ShardRecord) -> None:
        """Note a shard that is complete and synced."""
        self._append(asdict(record))
        self.records.append(record)

    def _append(self, entry: dict[str, object]) -> None:
        os.write(self._file, (json.dumps(entry) + "\n").encode())
        os.fsync(self._file)

    def finished(self, files: Sequence[str]) -> dict[str, ShardRecord]:
        """The records of those files that are still there in their full size."""
        sizes = {path.name: path.stat().st_size for path in self._folder.iterdir()}
        known = {record.file: record for record in self.records}
        return {f: known[f] for f in files if f in known and sizes.get(f) == known[f].size}


def _record(line: str) -> ShardRecord:
    data = json.loads(line)
    tensors = {name: TensorRecord(**entry) for name, entry in data.pop("tensors").items()}
    return ShardRecord(**data, tensors=tensors)
