"""Files that last: replaced whole, or growing a line a record, synced before anybody is told.

In a file that grows, a line counts once its newline is there. What a killed writer left behind the
last newline is cut off by the next one who writes; nothing was promised for it. One lock file a
folder keeps writers apart, be they threads or processes.
"""

import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studio.errors import StudioError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: what is read in here stays true until the block ends."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StudioError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def append(path: Path, lines: Sequence[str], *, sync: bool = True) -> None:
    """Add whole lines to the file; returns when they are safe on disk. Hold the lock."""
    data = "".join(line + "\n" for line in lines).encode()
    assert data.count(b"\n") == len(lines), "a record must not contain a newline"
    try:
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.lseek(handle, _cut_torn_end(handle), os.SEEK_SET)
            while data:
                data = data[os.write(handle, data) :]  # a full disk may take a part
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)
        if is_new and sync:
            sync_folder(path.parent)
    except OSError as error:
        raise StudioError(
            f"{path}: cannot be written ({error.strerror}); make room, then try again: what was "
            "stored before is safe"
        ) from error


def _cut_torn_end(handle: int) -> int:
    """Cut what lies behind the last newline; returns the size that is left."""
    size = end = os.fstat(handle).st_size
    while end > 0:
        start = max(end - 65536, 0)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(handle, end)
    return end


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file at once: there is the old content or the new one, never a part.

    Its folder is made if need be.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StudioError(
            f"{path}: cannot be written ({error.strerror}); make room or mend its folder"
        ) from error


class Follower:
    """Reads a growing file on from where it was, so that a long file costs nothing twice."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self.line = path, 0, 0

    def new_lines(self) -> list[str]:
        """The whole lines that came since the last call; none if there is no file yet."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StudioError(f"{self._path}: cannot be read ({error.strerror})") from error
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        try:
            lines = whole.decode().split("\n")[:-1]
        except UnicodeDecodeError as error:
            raise StudioError(f"{self._path}: is not UTF-8 text; restore a copy") from error
        self.line += len(lines)
        return [line.removesuffix("\r") for line in lines]


def now() -> str:
    """This moment as records have it: UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def json_line(record: dict[str, Any]) -> str:
    """A record as one line; NaN and infinity are refused, since JSON has none."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def json_records(path: Path) -> list[dict[str, Any]]:
    """Every record of a JSONL file; an empty list if there is none. A broken line is an error."""
    records = []
    for number, line in enumerate(Follower(path).new_lines(), start=1):
        records.append(json_record(line, path, number))
    return records


def json_record(line: str, path: Path, number: int) -> dict[str, Any]:
    """The JSON object on a line; raises StudioError naming file and line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StudioError(f"{path}, line {number}: is not JSON; restore a copy") from error
    if not isinstance(record, dict):
        raise StudioError(f"{path}, line {number}: is no JSON object; restore a copy")
    return record
