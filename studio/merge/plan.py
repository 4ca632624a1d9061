"""The plan of a merge: data, made by preflight, carried out by the pass."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from studio.merge.coefficients import settings_of
from studio.merge.gradient import Floats
from studio.merge.layout import Layout
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.tokens.alignment import Alignment
from studio.weights.checkpoint import SAFETENSORS, Checkpoint
from studio.weights.dtypes import ITEMSIZE
from studio.weights.header import TensorInfo, make_header
from studio.weights.rows import Run

# Raised when the way weights are computed or laid out changes, so that no older half is resumed.
ENGINE = 3
PIECE_BYTES = 32 << 20  # of all sources of a tensor, that one worker looks at together
_GRAIN = 1024  # elements; pieces are multiples of it
MOST_WORKERS = 4  # by then the disk is the limit


@dataclass(frozen=True, slots=True)
class Options:
    """How to merge, apart from the recipe.

    `shard_bytes`: the largest size of an output file, in bytes. `missing`: what to do about
    tensors that some sources lack, "error" or "base" (take the base's). `allow`: config keys that
    may differ, or "tokenizer". `device`: "cpu" or "cuda".
    """

    dtype: str | None = None
    shard_bytes: int = 5_000_000_000
    missing: str = "error"
    allow: frozenset[str] = frozenset()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class TensorJob:
    """One tensor of the result.

    `inputs`: the source tensors, one for each source of the recipe, or the single one to copy.
    `dtype`: of the result, in safetensors' names. `runs`: where the rows of an aligned tensor lie
    in the sources; empty where every element lies at its own place.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[TensorInfo, ...]
    sources: tuple[int, ...]
    runs: tuple[Run, ...] = ()

    @property
    def width(self) -> int:
        """The elements of a row."""
        return prod(self.shape[1:])

    @property
    def measured(self) -> int:
        """The number of elements that a Gram matrix is of; the result has the first `numel`."""
        return (self.runs[-1].at + self.runs[-1].count) * self.width if self.runs else self.numel

    @property
    def piece(self) -> int:
        """The elements that one worker looks at together: the Gram matrix is the sum of theirs."""
        width = sum(ITEMSIZE[info.dtype] for info in self.inputs)
        return max(PIECE_BYTES // width // _GRAIN, 1) * _GRAIN

    @property
    def groups(self) -> int:
        """How many groups of elements have weights of their own."""
        return 1 + max((run.group for run in self.runs), default=0)

    @property
    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of the result in bytes."""
        return self.numel * ITEMSIZE[self.dtype]

    @property
    def source_bytes(self) -> int:
        """The bytes to read."""
        return sum(info.nbytes for info in self.inputs)


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One output file and its tensors in the order of the file; independent of all others."""

    file: str
    tensors: tuple[TensorJob, ...]

    def header(self) -> bytes:
        """The safetensors header of the file."""
        return make_header([(job.name, job.dtype, job.shape) for job in self.tensors])

    @property
    def nbytes(self) -> int:
        """The size of the tensors, without the header."""
        return sum(job.nbytes for job in self.tensors)


@dataclass(frozen=True)
class Plan:
    """A checked merge, ready to run.

    `layout`: the tensors that are mixed (others are copied); `config`: the result's config.json;
    `notes`: what was decided about tensors that are not simply mixed; `warnings`: for the user.
    `alignment`: of the vocabularies, where the recipe merges by token.
    """

    recipe: Recipe
    options: Options
    sources: tuple[Checkpoint, ...]
    layout: Layout
    shards: tuple[ShardJob, ...]
    dtype: str
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)
    alignment: Alignment | None = None

    @property
    def bytes_read(self) -> int:
        """Bytes of source tensors, each read once from disk."""
        return sum(job.source_bytes for shard in self.shards for job in shard.tensors)

    @property
    def bytes_missing(self) -> int:
        """Bytes to download before the merge can begin."""
        return sum(source.missing for source in self.sources)

    @property
    def bytes_written(self) -> int:
        """Bytes of all output files with weights."""
        return sum(shard.nbytes + len(shard.header()) for shard in self.shards)

    @property
    def workers(self) -> int:
        """How many threads compute: one a core up to MOST_WORKERS, one for a GPU."""
        cores = len(os.sched_getaffinity(0)) if self.options.device == "cpu" else 1
        return min(cores, MOST_WORKERS)

    @cached_property
    def settings(self) -> list[dict[str, Floats]]:
        """The settings of every stage for the tensors of `layout`."""
        return settings_of(self.recipe, self.layout)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each mixed tensor in `layout` and `settings`."""
        return {name: row for row, name in enumerate(self.layout.names)}

    @cached_property
    def fingerprint(self) -> str:
        """Equal only for plans whose weights are the same to the bit on this machine."""
        content = {
            "engine": ENGINE,
            "recipe": dump_recipe(self.recipe),
            "sources": [[source.fingerprint(), source.state()] for source in self.sources],
            "shards": [[s.file, [(j.name, j.dtype) for j in s.tensors]] for s in self.shards],
            "device": self.options.device,
            "config": self.config,
            "alignment": self.alignment and self.alignment.fingerprint,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def shards_of(jobs: Sequence[TensorJob], limit: int) -> tuple[ShardJob, ...]:
    """Fill files of at most `limit` bytes, in order; a tensor above the limit gets its own.

    Within a file wider dtypes come first, so that every tensor is aligned to its element size.
    """
    groups: list[list[TensorJob]] = [[]]
    size = 0
    for job in jobs:
        if groups[-1] and size + job.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(job)
        size += job.nbytes
    count = len(groups)
    files = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    if count == 1:
        files = [SAFETENSORS]
    return tuple(
        ShardJob(file, tuple(sorted(group, key=lambda job: -ITEMSIZE[job.dtype])))
        for file, group in zip(files, groups, strict=True)
    )
