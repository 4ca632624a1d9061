"""Shards: what is written is what is read back, and a full disk is told."""

import errno
import fcntl
import os
import random
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.weights import writer
from studio.weights.writer import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    Buffer,
    ShardFile,
    digest_file,
    digest_of,
)

SIZES = [1, 4095, 4096, 4097, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 777]


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    return [(at, data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)]


def write_block(shard: ShardFile, offset: int, block: bytes) -> bytes:
    """Write a block from a buffer that holds other bytes behind it."""
    buffer = Buffer()
    buffer[:] = block + b"\xee" * (BLOCK_BYTES - len(block))
    return shard.write(offset, buffer, len(block))


def write_all(path: Path, data: bytes) -> list[bytes]:
    with ShardFile(path, len(data)) as shard:
        digests = [write_block(shard, offset, block) for offset, block in blocks(data)]
        shard.finish()
    return digests


@pytest.mark.parametrize("size", SIZES)
def test_a_shard_holds_exactly_what_was_written(tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "shard", content(size)
    digests = write_all(path, data)
    assert path.read_bytes() == data
    cuts = range(0, len(data), DIGEST_BYTES)
    parts = [xxhash.xxh3_64_digest(data[at : at + DIGEST_BYTES]) for at in cuts]
    assert b"".join(digests) == b"".join(parts)
    assert digest_file(path) == digest_of(digests)


def test_digest_is_that_of_the_concatenated_big_endian_digests_of_4_mib(tmp_path: Path) -> None:
    """Whatever the blocks are: the reports of finished merges hold such digests."""
    data, four = content(BLOCK_BYTES + 5), 4 * 1024 * 1024
    parts = [data[at : at + four] for at in range(0, len(data), four)]
    words = [xxhash.xxh3_64_intdigest(part) for part in parts]
    joined = b"".join(word.to_bytes(8, "big") for word in words)
    assert digest_of(write_all(tmp_path / "shard", data)) == xxhash.xxh3_64_hexdigest(joined)


@pytest.mark.parametrize("at", [0, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 9])
def test_digest_sees_a_changed_byte(tmp_path: Path, at: int) -> None:
    path, data = tmp_path / "shard", bytearray(content(BLOCK_BYTES + 10))
    digest = digest_of(write_all(path, bytes(data)))
    data[at] ^= 1
    path.write_bytes(data)
    assert digest_file(path) != digest


@given(st.permutations(range(3)))
def test_blocks_may_come_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    path, data = tmp_path_factory.mktemp("order") / "shard", content(2 * BLOCK_BYTES + 100)
    with ShardFile(path, len(data)) as shard:
        for index in order:
            write_block(shard, *blocks(data)[index])
        shard.finish()
    assert path.read_bytes() == data
    path.unlink()


def test_blocks_may_come_from_several_threads(tmp_path: Path) -> None:
    data = content(4 * BLOCK_BYTES)
    with ShardFile(tmp_path / "shard", len(data)) as shard:
        threads = [Thread(target=write_block, args=(shard, *block)) for block in blocks(data)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shard.finish()
    assert (tmp_path / "shard").read_bytes() == data


def test_an_interrupted_shard_keeps_its_blocks(tmp_path: Path) -> None:
    path, data = tmp_path / "shard", content(2 * BLOCK_BYTES + 100)
    first, second, third = blocks(data)
    with pytest.raises(KeyboardInterrupt), ShardFile(path, len(data)) as shard:
        write_block(shard, *first)
        write_block(shard, *third)
        raise KeyboardInterrupt
    with ShardFile(path, len(data)) as shard:
        write_block(shard, *second)
        shard.finish()
    assert path.read_bytes() == data


def test_a_longer_file_that_was_there_is_cut(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(content(9000, seed=1))
    write_all(tmp_path / "shard", content(5000))
    assert (tmp_path / "shard").read_bytes() == content(5000)


def test_a_buffer_serves_as_a_tensors_memory(tmp_path: Path) -> None:
    values, buffer = torch.arange(1000, dtype=torch.float32), Buffer()
    memory = torch.frombuffer(buffer, dtype=torch.float32)
    assert len(memory) * 4 == BLOCK_BYTES and memory.data_ptr() % 4096 == 0
    memory[:1000] = values
    with ShardFile(tmp_path / "shard", 4000) as shard:
        shard.write(0, memoryview(buffer), 4000)
        shard.finish()
    assert torch.equal(
        torch.frombuffer(bytearray((tmp_path / "shard").read_bytes()), dtype=torch.float32), values
    )


@pytest.mark.parametrize(("offset", "length"), [(1, 10), (4096, 10), (0, 9), (0, 11)])
def test_a_block_must_be_whole_and_in_its_place(tmp_path: Path, offset: int, length: int) -> None:
    with ShardFile(tmp_path / "shard", 10) as shard, pytest.raises(AssertionError):
        shard.write(offset, Buffer(), length)


class Disk:
    """os.pwrite of a file system that fails as told, a few bytes at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: list[int | None]) -> None:
        self.failures = failures
        self.writes: list[tuple[int, int, bool]] = []  # offset, length, direct
        self.real = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        direct = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)
        self.writes.append((offset, len(data), direct))
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise OSError(failure, os.strerror(failure))
        return self.real(fd, data[: 1024 * 1024], offset)


@pytest.mark.parametrize("size", SIZES)
def test_every_write_is_direct_and_of_whole_sectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    disk = Disk(monkeypatch, [])
    write_all(tmp_path / "shard", content(size))
    assert all(offset % 4096 == length % 4096 == 0 for offset, length, _ in disk.writes)
    assert all(direct for _, _, direct in disk.writes)


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, [])
    write_all(tmp_path / "shard", content(BLOCK_BYTES + 5000))
    assert (tmp_path / "shard").read_bytes() == content(BLOCK_BYTES + 5000)


def test_a_refused_direct_write_is_repeated_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, [None, errno.EINVAL])
    write_all(tmp_path / "shard", content(BLOCK_BYTES + 5000))
    assert disk.failures == []
    assert [direct for _, _, direct in disk.writes] == [True, True] + [False] * (BLOCK_BYTES >> 20)
    assert (tmp_path / "shard").read_bytes() == content(BLOCK_BYTES + 5000)


def refusing(code: int) -> Callable[[int, int, int], None]:
    """os.posix_fallocate of a file system that has no room, or cannot keep any."""

    def posix_fallocate(fd: int, offset: int, length: int) -> None:
        raise OSError(code, os.strerror(code))

    return posix_fallocate


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusing(reason))
    told = "shard: the disk is full; free at least 5.0 GB, then run the same command to resume"
    with pytest.raises(StudioError, match=told), ShardFile(tmp_path / "shard", 5 * 10**9):
        pytest.fail("there is no room")


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_writing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusing(errno.EOPNOTSUPP))
    Disk(monkeypatch, [None, reason])
    told = "shard: the disk is full; free at least 5.0 GB, then run the same command to resume"
    with pytest.raises(StudioError, match=told), ShardFile(tmp_path / "shard", 5 * 10**9) as shard:
        shard.write(0, Buffer(), BLOCK_BYTES)


@pytest.mark.parametrize("reason", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_keeps_no_room_serves_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusing(reason))
    write_all(tmp_path / "shard", content(5000))
    assert (tmp_path / "shard").read_bytes() == content(5000)


@pytest.mark.parametrize("failures", [[errno.EIO], [errno.EINVAL, errno.EINVAL]])
def test_a_failing_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: list[int | None]
) -> None:
    Disk(monkeypatch, failures)
    with pytest.raises(StudioError, match="shard: writing failed .*; check the disk"):
        write_all(tmp_path / "shard", content(10))


def test_finish_tells_a_disk_that_fills_up_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudioError, match="the disk is full"):
        write_all(tmp_path / "shard", content(10))


def test_a_file_system_without_direct_writes_serves_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, direct = os.open, 1 << 30

    def plain_only(path: Path, flags: int, mode: int) -> int:
        if flags & direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, mode)

    monkeypatch.setattr(writer, "_DIRECT", direct)
    monkeypatch.setattr(os, "open", plain_only)
    write_all(tmp_path / "shard", content(5000))
    assert (tmp_path / "shard").read_bytes() == content(5000)


def test_a_shard_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="shard: cannot be written .No such file"):
        write_all(tmp_path / "missing" / "shard", content(10))
    with pytest.raises(StudioError, match="cannot be written .Is a directory"):
        write_all(tmp_path, content(10))
    with pytest.raises(StudioError, match="shard: cannot be read .No such file"):
        digest_file(tmp_path / "shard")
