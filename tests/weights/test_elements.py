"""Elements in files: read where they are needed, the same to the kernels as those in memory."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from studio.errors import StudioError
from studio.weights import elements, streaming
from studio.weights.checkpoint import Checkpoint
from studio.weights.cpu_kernels import mix, partial_gram
from studio.weights.dtypes import ITEMSIZE
from studio.weights.elements import Elements, Flat, Span
from studio.weights.header import TensorInfo
from studio.weights.loops import BLOCK
from tests.checkpoints import write_checkpoint

COUNT = 200 * BLOCK + 13  # many turns of the loops, and a rest


def values(dtype: str, seed: int) -> np.ndarray:
    """The bytes of COUNT numbers."""
    found = np.random.default_rng(seed).normal(size=COUNT)
    if dtype == "BF16":
        return (found.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    kind = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]
    return found.astype(kind).view(np.uint8)


def in_file(folder: Path, data: np.ndarray, dtype: str, before: int = 7) -> TensorInfo:
    """The bytes as a tensor in a file, `before` bytes from its beginning."""
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    path.write_bytes(bytes(before) + data.tobytes() + b"after")
    count = len(data) // ITEMSIZE[dtype]
    return TensorInfo("w", dtype, (count,), path, before, len(data))


@pytest.mark.parametrize("dtypes", [("BF16",), ("BF16", "F32", "F16"), ("F64", "BF16")])
def test_files_and_memory_give_the_same_bits(tmp_path: Path, dtypes: tuple[str, ...]) -> None:
    data = [values(dtype, seed) for seed, dtype in enumerate(dtypes)]
    pairs = list(zip(dtypes, data, strict=True))
    memory: list[Elements] = [Flat(*pair) for pair in pairs]
    files: list[Elements] = [Span.of(in_file(tmp_path, d, dtype)) for dtype, d in pairs]
    both = [*files[:1], *memory[1:]]
    weights = [0.3] * len(dtypes)
    wanted = Flat("BF16", np.empty(COUNT * 2, np.uint8))
    mix(memory, weights, wanted)
    for sources in (files, both):
        out = Flat("BF16", np.empty(COUNT * 2, np.uint8))
        mix(sources, weights, out)
        assert_array_equal(out.data, wanted.data)
        assert_array_equal(partial_gram(sources), partial_gram(memory))


def test_a_part_of_a_part_is_where_it_should_be(tmp_path: Path) -> None:
    numbers = np.arange(1000, dtype=np.float32)
    span = Span.of(in_file(tmp_path, numbers.view(np.uint8), "F32"))
    part = span.part(100, 900).part(50, 60)
    assert part.count == 10
    assert_array_equal(part.data.view(np.float32), numbers[150:160])
    for start, stop, count in ((990, 2000, 10), (1000, 1001, 0), (5, 5, 0), (2000, 3000, 0)):
        assert span.part(start, stop).count == count == len(span.part(start, stop).data) // 4


def test_the_file_is_open_until_it_is_closed(tmp_path: Path) -> None:
    span = Span.of(in_file(tmp_path, values("F32", 1), "F32"))
    part, descriptor = span.part(0, 10), span.file.descriptor
    os.fstat(descriptor)
    span.close()
    assert part.count == 10
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    info = TensorInfo("w", "F32", (1,), tmp_path / "none", 0, 4)
    with pytest.raises(StudioError, match="none: tensor 'w' cannot be read .No such file"):
        Span.of(info)


def test_a_file_that_has_shrunk_is_named_by_every_way_to_read_it(tmp_path: Path) -> None:
    fine = Span.of(in_file(tmp_path, values("BF16", 1), "BF16"))
    info = in_file(tmp_path, values("BF16", 2), "BF16")
    short = Span.of(info)
    os.truncate(info.file, info.start + info.nbytes // 2)
    out = Flat("BF16", np.empty(COUNT * 2, np.uint8))
    for read in (
        lambda: short.data,
        lambda: partial_gram([fine, short]),
        lambda: mix([short, fine], [1, 1], out),
    ):
        with pytest.raises(StudioError, match=f"{info.file}: .*it has become shorter.*start again"):
            read()


def test_a_disk_that_refuses_is_quoted(tmp_path: Path) -> None:
    span = Span.of(in_file(tmp_path, values("BF16", 1), "BF16"))
    os.dup2(os.open(tmp_path, os.O_RDONLY), span.file.descriptor)  # a folder cannot be read
    for read in (lambda: span.data, lambda: partial_gram([span])):
        with pytest.raises(StudioError, match="Is a directory"):
            read()


def test_what_is_in_the_page_cache_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    span = Span.of(in_file(tmp_path, values("F32", 1), "F32"))
    try:
        os.preadv(span.file.descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError:
        pytest.skip("this file system cannot say what is in the page cache")
    monkeypatch.setattr(
        elements.os, "posix_fadvise", lambda file, start, size, advice: asked.append((start, size))
    )
    assert span.data.size == 4 * COUNT
    span.prefetch()
    assert asked == []
    monkeypatch.setattr(Span, "_ends_in_cache", lambda span: False)
    span.prefetch()
    span.part(5, 5).prefetch()
    assert asked == [(7, 4 * COUNT)]


def test_a_turn_is_of_whole_blocks_and_its_room_bounded() -> None:
    for widths in ([2], [2, 2, 2], [8] * 5, [4] * 3000):
        room, one_block = streaming.room_bytes(widths), BLOCK * sum(widths)
        assert room % one_block == 0
        assert one_block <= room <= max(one_block, 384 << 10)


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_every_tensor_of_a_checkpoint_reads_as_it_is_loaded(tmp_path: Path, format: str) -> None:
    opened = Checkpoint.open(write_checkpoint(tmp_path / "m", layers=2, format=format), "m")
    for name, info in opened.tensors.items():
        loaded = opened.load(name).view(-1).view(torch.uint8)
        assert_array_equal(Span.of(info).data, loaded.numpy())
