"""Files that last: what a reader sees while, and after, something goes wrong."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio.durable import write_whole
from studio.errors import StudioError


def test_write_whole_makes_the_folder_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_whole(path, "old")
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["b.json"]


def test_write_whole_by_many_threads_leaves_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [str(n) * 5000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(path, text), texts))
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["file"]


def test_write_whole_that_fails_keeps_the_old_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudioError, match=r"file: cannot be written \(No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
