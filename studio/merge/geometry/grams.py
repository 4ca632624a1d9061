"""Gram matrices that lasted: a folder with a small file for each pair of models.

The inner products of two models do not depend on a third, so a file holds the squared norms of a
pair's tensors and the squared distances between them, from which Gram matrices of any set follow
without cancellation: <x, y> = (|x|² + |y|² - |x - y|²) / 2. Files are named after the models'
fingerprints, wherever the models lie, and replaced as a whole: any number of processes may read and
write here.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.durable import write_whole
from studio.errors import StudioError
from studio.merge.gradient import Floats
from studio.merge.plan import Plan, TensorJob

FORMAT = "1"
_UNREADABLE = (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError)
Texts = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class _Pair:
    """What a file holds of two models: for each of T tensors what it reads, and three squares.

    `reads`: (T, 3) texts: the result's tensor and what it takes from each model; `squares`: (T, 3):
    the two norms and the distance.
    """

    reads: Texts
    squares: Floats


class Grams:
    """The folder of pairs; `say` is told in a sentence what could not be read or written."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say

    def load(self, plan: Plan) -> Floats:
        """What is known of the plan's sources: (T, n, n) for `plan.layout`, NaN where nothing is.

        A tensor is known as a whole or not at all.
        """
        jobs, count = jobs_of(plan), len(plan.sources)
        norms = np.full((len(jobs), count), np.nan)
        gram = np.full((len(jobs), count, count), np.nan)
        fingerprints = [source.fingerprint() for source in plan.sources]
        for i, j in _pairs(count):
            found = self._squares(jobs, (i, j), (fingerprints[i], fingerprints[j]))
            for column, source in enumerate((i, j)):
                norms[:, source] = np.where(
                    np.isnan(norms[:, source]), found[:, column], norms[:, source]
                )
            gram[:, i, j] = gram[:, j, i] = found[:, 2]
        squares = norms[:, :, None] + norms[:, None, :]
        diagonal = np.eye(count, dtype=bool)
        gram = np.where(diagonal, squares / 2, (squares - gram) / 2)
        gram[np.isnan(gram).any(axis=(1, 2))] = np.nan
        return gram

    def store(self, plan: Plan, gram: Floats) -> None:
        """Keep the exact Gram matrices (T, n, n) of the plan's sources."""
        jobs = jobs_of(plan)
        norms = np.diagonal(gram, axis1=1, axis2=2)
        fingerprints = [source.fingerprint() for source in plan.sources]
        for i, j in _pairs(len(plan.sources)):
            square = norms[:, i] + norms[:, j] - 2 * gram[:, i, j]
            first, second = (i, j) if fingerprints[i] <= fingerprints[j] else (j, i)
            pair = _Pair(
                np.array([[job.name, _reads(job, first), _reads(job, second)] for job in jobs]),
                np.stack([norms[:, first], norms[:, second], square], axis=1),
            )
            path = self._path(fingerprints[first], fingerprints[second])
            try:
                _write(path, pair)
            except StudioError as error:
                self._say(f"the geometry of the sources cannot be kept: {error}")
                return

    def _squares(
        self, jobs: Sequence[TensorJob], pair: tuple[int, int], prints: tuple[str, str]
    ) -> Floats:
        """The squares of the pair's tensors, (T, 3), NaN where they are not known."""
        turned = prints[0] > prints[1]
        first, second = pair[::-1] if turned else pair
        held = self._read(self._path(min(prints), max(prints)))
        if held is None:
            return np.full((len(jobs), 3), np.nan)
        row_of = {tuple(texts): row for row, texts in enumerate(held.reads.tolist())}
        wanted = [(job.name, _reads(job, first), _reads(job, second)) for job in jobs]
        rows = np.array([row_of.get(texts, -1) for texts in wanted], dtype=np.int64)
        found = np.where((rows >= 0)[:, None], held.squares[rows], np.nan)
        return found[:, [1, 0, 2]] if turned else found

    def _read(self, path: Path) -> _Pair | None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                reads, squares = held["reads"], held["squares"]
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            self._say(f"{path}: damaged ({error}); the sources are measured again")
            return None
        is_whole = len(reads) and reads.shape == squares.shape == (len(reads), 3)
        if not is_whole or reads.dtype.kind != "U":
            self._say(f"{path}: not as the studio wrote it; the sources are measured again")
            return None
        return _Pair(reads, squares.astype(float))

    def _path(self, first: str, second: str) -> Path:
        return self._folder / f"{first}-{second}-{FORMAT}.npz"


def jobs_of(plan: Plan) -> list[TensorJob]:
    """The jobs of the mixed tensors, in the order of `plan.layout`."""
    by_name = {job.name: job for shard in plan.shards for job in shard.tensors}
    return [by_name[name] for name in plan.layout.names]


def _pairs(count: int) -> list[tuple[int, int]]:
    return list(combinations(range(count), 2)) or [(0, 0)]


def _reads(job: TensorJob, source: int) -> str:
    """What the job reads of a source; an output head may be the embeddings of another model.

    The product of two aligned tensors depends on all the sources: tokens are filled in from others.
    """
    rows = [(run.at, run.count, run.starts) for run in job.runs if run.at < job.shape[0]]
    digest = f" {hashlib.sha256(repr(rows).encode()).hexdigest()[:32]}" if rows else ""
    return f"{job.inputs[source].name} {list(job.shape)}{digest}"


def _write(path: Path, pair: _Pair) -> None:
    content = io.BytesIO()
    arrays: dict[str, Any] = {"reads": pair.reads, "squares": pair.squares}
    np.savez_compressed(content, **arrays)
    write_whole(path, content.getvalue())
