"""Writing a shard: a file of known size, block by block, past the page cache, with a checksum.

Blocks may be written in any order and by several threads, and those of an earlier run stay, so a
merge that was interrupted goes on with the blocks that are missing.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import xxhash

from studio.errors import StudioError

BLOCK_BYTES = 8 << 20
DIGEST_BYTES = 4 << 20  # that a digest is of: a part of what a digest means, so it stays
_SECTOR = 4096  # direct writes begin, end and lie in memory at multiples of it
_DIRECT = getattr(os, "O_DIRECT", 0)  # not on macOS
_NO_ROOM_AHEAD = (errno.EINVAL, errno.EOPNOTSUPP)  # a file system that finds room as it is written
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Buffer(mmap.mmap):
    """Memory for one block, aligned as direct writes need it."""

    def __new__(cls) -> "Buffer":
        buffer = super().__new__(cls, -1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # two long pieces for the disk instead of a thousand
            with suppress(OSError):  # a kernel without huge pages
                buffer.madvise(mmap.MADV_HUGEPAGE)
        return buffer


class ShardFile:
    """A file of `size` bytes for writing blocks: `with` opens and closes, `finish` makes it last.

    What an earlier run wrote into it stays. Raises StudioError if the disk is full or refuses.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._fd = -1

    def __enter__(self) -> "ShardFile":
        try:
            self._fd = _open(self.path)
        except OSError as error:
            raise StudioError(f"{self.path}: cannot be written ({error.strerror})") from error
        try:
            _reserve(self._fd, self.size)
        except OSError as error:
            failure = self._failure(error)
            os.close(self._fd)
            raise failure from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, offset: int, buffer: Buffer | memoryview, length: int) -> bytes:
        """Write the first `length` bytes of an aligned buffer at `offset`; their digests in a row.

        `offset` is a multiple of BLOCK_BYTES and `length` is BLOCK_BYTES but for the last block.
        The buffer must go on to the next multiple of 4096 bytes; what is there is not kept.
        """
        assert offset % BLOCK_BYTES == 0, offset
        assert length == min(BLOCK_BYTES, self.size - offset), (offset, length, self.size)
        data = memoryview(buffer)
        digests = _digests(data[:length])  # first, while the data is in a cache
        self._write_all(offset, data[: length + -length % _SECTOR])
        return digests

    def finish(self) -> None:
        """Cut the padding of the last block and wait until all is on the disk."""
        try:
            os.ftruncate(self._fd, self.size)
            os.fsync(self._fd)
        except OSError as error:
            raise self._failure(error) from error

    def _write_all(self, offset: int, data: memoryview) -> None:
        may_be_direct = True
        while data:
            try:
                written = os.pwrite(self._fd, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or not may_be_direct:
                    raise self._failure(error) from error
                may_be_direct = False  # a file system that opens for direct writes, then refuses
                fcntl.fcntl(self._fd, fcntl.F_SETFL, 0)
            else:
                data, offset = data[written:], offset + written

    def _failure(self, error: OSError) -> StudioError:
        if error.errno not in _DISK_FULL:
            return StudioError(f"{self.path}: writing failed ({error.strerror}); check the disk")
        needed = self.size - os.fstat(self._fd).st_blocks * 512
        return StudioError(
            f"{self.path}: the disk is full; free at least {max(needed, 0) / 1e9:.1f} GB, then run "
            "the same command to resume"
        )


def _digests(data: memoryview) -> bytes:
    """The 8-byte digests of each DIGEST_BYTES."""
    parts = (data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES))
    return b"".join(map(xxhash.xxh3_64_digest, parts))


def digest_of(digests: Iterable[bytes]) -> str:
    """A file's digest, 16 hex digits, from those of its blocks in the order of their offsets."""
    return xxhash.xxh3_64_hexdigest(b"".join(digests))


def digest_file(path: Path) -> str:
    """The digest of a file on the disk, as `digest_of` gives it for the blocks written."""
    try:
        with path.open("rb") as stream:
            parts = iter(lambda: stream.read(DIGEST_BYTES), b"")
            return digest_of(map(xxhash.xxh3_64_digest, parts))
    except OSError as error:
        raise StudioError(f"{path}: cannot be read ({error.strerror})") from error


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT
    try:
        return os.open(path, flags | _DIRECT, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o666)  # a file system without direct writes


def _reserve(fd: int, size: int) -> None:
    """Make the file `size` bytes long, with room on the disk for all of them if it can be had.

    Writes that extend a file, or that have to find room for it, wait for each other.
    """
    os.ftruncate(fd, size)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in _NO_ROOM_AHEAD:
                raise
