"""Elements in files: read where they are needed, the same to the kernels as those in memory."""

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from studio.errors import StudioError
from studio.weights import mapped_loops
from studio.weights.checkpoint import Checkpoint
from studio.weights.cpu_kernels import mix, partial_gram
from studio.weights.dtypes import ITEMSIZE
from studio.weights.elements import Elements, Flat, OpenFiles, Span
from studio.weights.header import TensorInfo
from studio.weights.loops import BLOCK
from studio.weights.pages import HUGE, prefetch
from tests.checkpoints import write_checkpoint

COUNT = 200 * BLOCK + 13  # worth a map in any type, and no whole number of turns


def values(dtype: str, seed: int) -> np.ndarray:
    """The bytes of COUNT numbers."""
    found = np.random.default_rng(seed).normal(size=COUNT)
    if dtype == "BF16":
        return (found.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    kind = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]
    return found.astype(kind).view(np.uint8)


def opened(info: TensorInfo) -> Span:
    """Its file is open until nothing refers to it."""
    return OpenFiles().span(info)


def in_file(folder: Path, data: np.ndarray, dtype: str, before: int = 7) -> TensorInfo:
    """The bytes as a tensor in a file, `before` bytes from its beginning."""
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    path.write_bytes(bytes(before) + data.tobytes() + b"after")
    count = len(data) // ITEMSIZE[dtype]
    return TensorInfo("w", dtype, (count,), path, before, len(data))


@pytest.mark.parametrize("at_a_time", [None, 1, 100_000])
@pytest.mark.parametrize("dtypes", [("BF16",), ("BF16", "F32", "F16"), ("F64", "BF16")])
def test_files_and_memory_give_the_same_bits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtypes: tuple[str, ...],
    at_a_time: int | None,
) -> None:
    if at_a_time:
        monkeypatch.setattr(mapped_loops, "_TOGETHER", at_a_time)
        monkeypatch.setattr(mapped_loops, "_ALONE", at_a_time)
    data = [values(dtype, seed) for seed, dtype in enumerate(dtypes)]
    pairs = list(zip(dtypes, data, strict=True))
    memory: list[Elements] = [Flat(*pair) for pair in pairs]
    files: list[Elements] = [opened(in_file(tmp_path, d, dtype)) for dtype, d in pairs]
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
    span = opened(in_file(tmp_path, numbers.view(np.uint8), "F32"))
    part = span.part(100, 900).part(50, 60)
    assert part.count == 10
    assert_array_equal(part.data.view(np.float32), numbers[150:160])
    for start, stop, count in ((990, 2000, 10), (1000, 1001, 0), (5, 5, 0), (2000, 3000, 0)):
        assert span.part(start, stop).count == count == len(span.part(start, stop).data) // 4


def test_each_file_is_open_once_until_all_are_closed(tmp_path: Path) -> None:
    infos = [in_file(tmp_path, values("F32", seed), "F32") for seed in range(2)]
    files = OpenFiles()
    spans = [files.span(info) for info in infos for _ in range(3)]
    descriptors = {span.part(0, 10).file.fileno() for span in spans}
    assert len(descriptors) == 2
    files.close()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    info = TensorInfo("w", "F32", (1,), tmp_path / "none", 0, 4)
    with pytest.raises(StudioError, match="none: tensor 'w' cannot be read .No such file"):
        opened(info)


@pytest.mark.parametrize("left", ["half", "a page less"])
def test_a_file_that_has_shrunk_is_named_by_every_way_to_read_it(tmp_path: Path, left: str) -> None:
    fine = opened(in_file(tmp_path, values("BF16", 1), "BF16"))
    info = in_file(tmp_path, values("BF16", 2), "BF16")
    short = opened(info)
    size = info.start + info.nbytes
    os.truncate(info.file, size // 2 if left == "half" else size - mmap.PAGESIZE)
    for read in ways_to_read(short, fine):
        with pytest.raises(StudioError, match=f"{info.file}: .*it has become shorter.*start again"):
            read()


def ways_to_read(span: Span, other: Span) -> list[Callable[[], object]]:
    """Whole and in parts, by mapping and by reading, as the first source and as another."""
    out = Flat("BF16", np.empty(COUNT * 2, np.uint8))
    last = [each.part(COUNT - 20, COUNT) for each in (other, span)]
    return [
        lambda: span.data,
        lambda: partial_gram([other, span]),
        lambda: partial_gram(last),
        lambda: mix([span, other], [1, 1], out),
    ]


def test_a_disk_that_refuses_is_quoted(tmp_path: Path) -> None:
    span, fine = (opened(in_file(tmp_path, values("BF16", seed), "BF16")) for seed in (1, 2))
    os.dup2(os.open(span.file.name, os.O_WRONLY), span.file.fileno())
    with pytest.raises(StudioError, match="Bad file descriptor"):
        span.data  # noqa: B018
    with pytest.raises(StudioError, match="Permission denied"):
        partial_gram([fine, span])


def test_a_page_that_the_disk_refuses_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = opened(in_file(tmp_path, values("BF16", 1), "BF16"))
    fine = opened(in_file(tmp_path, values("BF16", 2), "BF16"))
    os.truncate(span.file.name, 0)  # its pages are refused as those of a broken disk are
    size = os.stat_result((0,) * 6 + (span.start + span.nbytes,) + (0,) * 3)
    monkeypatch.setattr(mapped_loops.os, "fstat", lambda descriptor: size)
    with pytest.raises(StudioError, match="Input/output error"):
        partial_gram([fine, span])


def test_nothing_stays_mapped(tmp_path: Path) -> None:
    fine = opened(in_file(tmp_path, values("BF16", 1), "BF16"))
    short = opened(in_file(tmp_path, values("BF16", 2), "BF16"))
    partial_gram([fine, fine])
    os.truncate(short.file.name, 100)
    with pytest.raises(StudioError):
        partial_gram([fine, short])
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_prefetched_elements_are_in_the_page_cache(tmp_path: Path) -> None:
    info = in_file(tmp_path, values("F32", 1), "F32")
    span = opened(info)
    with info.file.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if span.seems_cached():
        pytest.skip("this file system keeps what it is asked to drop, or cannot say")
    prefetch(span)
    assert span.seems_cached()
    assert span.part(5, 5).seems_cached(), "nothing is always there"
    assert span.data.tobytes() == info.file.read_bytes()[7:-5]


def test_what_cannot_be_prefetched_is_left_for_whoever_needs_it(tmp_path: Path) -> None:
    span = opened(in_file(tmp_path, values("F32", 1), "F32"))
    os.truncate(str(span.file.name), 100)
    prefetch(span)
    with pytest.raises(StudioError, match="it has become shorter"):
        span.data  # noqa: B018


@pytest.mark.parametrize("cores", [1, 2, 4, 128])
def test_what_is_mapped_is_bounded(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    for widths in ([2], [2, 2, 2], [8] * 5):
        edges = len(widths) * 2 * HUGE
        assert mapped_loops.most_mapped(widths) <= max((48 << 20) // cores, 12 << 20) + edges


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_every_tensor_of_a_checkpoint_reads_as_it_is_loaded(tmp_path: Path, format: str) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path / "m", layers=2, format=format), "m")
    for name, info in checkpoint.tensors.items():
        loaded = checkpoint.load(name).view(-1).view(torch.uint8)
        assert_array_equal(opened(info).data, loaded.numpy())
