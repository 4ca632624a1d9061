"""What a job's tensor is made of, and what of it is read ahead."""

from contextlib import closing
from pathlib import Path

import pytest

from studio.merge.inputs import Inputs
from studio.merge.plan import TensorJob
from studio.weights.elements import OpenFiles, Span
from studio.weights.header import TensorInfo
from studio.weights.pages import PREFETCH_BYTES


def job(folder: Path, nbytes: int) -> TensorJob:
    infos = []
    for name in ("a", "b"):
        path = folder / name
        with path.open("wb") as file:
            file.truncate(8 + nbytes)
        infos.append(TensorInfo("w", "BF16", (nbytes // 2,), path, 8, nbytes))
    return TensorJob("w", (nbytes // 2,), "BF16", tuple(infos), (0, 1))


def test_what_is_on_the_disk_only_is_read_ahead_in_small_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 3 * PREFETCH_BYTES + 100
    monkeypatch.setattr(Span, "seems_cached", lambda span: Path(str(span.file.name)).name == "b")
    with closing(OpenFiles()) as files:
        pieces = list(Inputs(job(tmp_path, size), files).to_prefetch())
    assert {Path(str(piece.file.name)).name for piece in pieces} == {"a"}
    assert [piece.nbytes for piece in pieces] == [PREFETCH_BYTES] * 3 + [100]
    assert [piece.start for piece in pieces] == [8 + n * PREFETCH_BYTES for n in range(4)]


def test_what_is_in_the_page_cache_is_not_read_ahead(tmp_path: Path) -> None:
    with closing(OpenFiles()) as files:
        inputs = Inputs(job(tmp_path, 5000), files)
        for part in inputs.parts(0, 2500):
            assert [span.data.size for span in part.spans] == [5000, 5000]
        if not all(span.seems_cached() for span in part.spans):
            pytest.skip("this file system cannot say what is in the page cache")
        assert list(inputs.to_prefetch()) == []
