"""Gram matrices estimated from blocks spread over each tensor, with their uncertainty.

A tensor is cut into strata of equal size, and each round reads one block of each: the first at a
random place, the next ones equally far on from there.
A block is whole rows where they are short enough: then the few columns that stand out in every row
are in every block alike. The mean block, scaled to the whole, estimates the Gram matrix.

How uncertain that is follows from how neighbouring blocks differ (the successive differences of
Wolter, "Introduction to Variance Estimation", ch. 8, and the correction for the part that was
read). Rows that stand out are rare: a tensor's own blocks may have missed all of them and look too
much alike. So what the blocks of a module scatter by, in units of a middling block's norms, is
averaged over all layers, among which some of these rows were hit. A module of few layers gets more
strata instead.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from studio.errors import StudioError
from studio.merge.geometry.grams import jobs_of
from studio.merge.gradient import Floats
from studio.merge.inputs import Inputs
from studio.merge.layout import Integers
from studio.merge.plan import Plan, TensorJob
from studio.merge.tokens.alignment import fill
from studio.weights.cpu_kernels import partial_gram
from studio.weights.elements import OpenFiles
from studio.weights.gram import NonFinite, from_difference_basis
from studio.weights.sample import block_grams

STRATA = 16  # blocks of a tensor in each round
ALONE = 16  # a module's layers together get at least as many blocks as so many tensors
BLOCK_ELEMENTS = 8192  # a row of a 70B model; 16 KB where a disk takes about as long for 4
READERS = 8


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated Gram matrices: (T, m, m), and how they may be off.

    `deviations`: (T, q, m, m); the estimation error has the covariance of Σ z_k deviations[k] with
    independent z_k of variance 1. `part`: of all elements, what was read.
    """

    gram: Floats
    deviations: Floats
    part: float


@dataclass(slots=True)
class _Blocks:
    """What was read of one tensor: where blocks of `count` elements began, their Gram matrices."""

    count: int
    starts: Integers
    grams: Floats

    def joined(self, other: "_Blocks") -> "_Blocks":
        """All blocks in the order of their places."""
        starts = np.concatenate([self.starts, other.starts])
        order = np.argsort(starts, kind="stable")
        return _Blocks(self.count, starts[order], np.concatenate([self.grams, other.grams])[order])

    def unit(self) -> Floats:
        """What entries are measured in, (p,): the products of a middling block's norms."""
        square = np.median(np.diagonal(self.grams, axis1=1, axis2=2), axis=0)
        norms = np.sqrt(np.maximum(square, 0.0))
        found = _entries(norms[:, None] * norms[None, :])
        return np.where(found > 0, found, 1.0)

    def scatter(self) -> Floats:
        """The covariance of the blocks' entries, (p, p), from neighbours' differences."""
        steps = np.diff(_entries(self.grams), axis=0)
        found: Floats = steps.T @ steps / max(2 * len(steps), 1)
        return found


def estimates(
    plan: Plan, rounds: int, block: int = BLOCK_ELEMENTS, seed: int = 0
) -> Iterator[Estimate]:
    """An estimate for the tensors of `plan.layout` after each round, each better than the last.

    Small tensors are read whole in the first. Raises StudioError for NaN or Inf in a block and for
    files that cannot be read.
    """
    jobs = jobs_of(plan)
    siblings = Counter(plan.layout.modules)
    strata = [STRATA * max(1, ALONE // siblings[module]) for module in plan.layout.modules]
    cuts = [_cut(job, rounds * s, block) for job, s in zip(jobs, strata, strict=True)]
    held: dict[int, _Blocks] = {}
    with ThreadPoolExecutor(READERS, thread_name_prefix="sample") as pool:
        for number in range(rounds):
            rows = [n for n, job in enumerate(jobs) if number == 0 or cuts[n] < job.numel]
            draws = [_places(jobs[n], cuts[n], strata[n], (seed, number / rounds)) for n in rows]
            asked = ([jobs[n] for n in rows], [cuts[n] for n in rows], draws)
            read = pool.map(partial(_read, plan), *asked)
            for n, starts, grams in zip(rows, draws, read, strict=True):
                new = _Blocks(cuts[n], starts, grams)
                held[n] = held[n].joined(new) if n in held else new
            yield _estimate(jobs, [held[n] for n in range(len(jobs))], plan.layout.modules)


def _read(plan: Plan, job: TensorJob, cut: int, starts: Integers) -> Floats:
    try:
        if job.runs:
            return np.array([_aligned_block(job, start, start + cut) for start in starts.tolist()])
        return block_grams(job.inputs, starts.tolist(), cut)
    except NonFinite as error:
        assert error.source is not None
        info, source = job.inputs[error.source], plan.sources[job.sources[error.source]]
        raise StudioError(
            f"{info.file}: tensor {info.name} of {source.label} holds {error}; this checkpoint is "
            "damaged, get it anew"
        ) from None


def _aligned_block(job: TensorJob, start: int, stop: int) -> Floats:
    """The Gram matrix of a block of an aligned tensor, in the difference basis.

    Rows that a source lacks are filled in, as for an input of a stage.
    """
    count = len(job.inputs)
    total = np.zeros((count, count))
    with closing(OpenFiles()) as files:
        inputs = Inputs(job, files)
        for part in inputs.parts(start, min(stop, job.numel)):
            own = np.zeros((count, count))
            try:
                square = partial_gram(part.spans)
            except NonFinite as error:
                assert error.source is not None
                raise NonFinite(str(error), part.sources[error.source]) from None
            own[np.ix_(part.sources, part.sources)] = from_difference_basis(square)
            made_of = fill([number in part.sources for number in range(count)])
            total += made_of @ own @ made_of.T
    basis = np.eye(count)
    basis[1:, 0] = -1
    found: Floats = basis @ total @ basis.T
    return found


def _cut(job: TensorJob, most: int, block: int) -> int:
    """Elements a block: as many whole rows as fit `block`, or a part of a longer one.

    The whole tensor, if it has no more than `most` blocks.
    """
    row = job.numel // job.shape[0] if job.shape and job.numel else 1
    count = max(block // row, 1) * row if row <= 4 * block else block
    return count if job.numel > count * most else job.numel


def _places(job: TensorJob, count: int, strata: int, draw: tuple[int, float]) -> Integers:
    """Where one random block of each stratum begins; of a tensor that is one block, that.

    `draw`: the seed, and how far on from the place it gives in the stratum, 0 … 1: so the blocks of
    a stratum's rounds are apart from each other, and spread over it.
    """
    if count == job.numel:
        return np.zeros(1, dtype=np.int64)
    seed, further = draw
    digest = hashlib.blake2b(f"{seed} {job.name}".encode(), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(digest, "little")).random(strata)
    edges = np.arange(strata + 1) * (job.numel // count) // strata
    places = edges[:-1] + ((drawn + further) % 1 * np.diff(edges)).astype(np.int64)
    return np.asarray(places * count)


def _estimate(
    jobs: Sequence[TensorJob], held: Sequence[_Blocks], modules: Sequence[str]
) -> Estimate:
    numel = np.array([job.numel for job in jobs])
    read = np.array([blocks.count * len(blocks.starts) for blocks in held])
    number = np.array([len(blocks.starts) for blocks in held])
    scale = np.array([n / max(b.count, 1) for n, b in zip(numel, held, strict=True)])
    units = np.array([blocks.unit() for blocks in held])
    square = units[:, :, None] * units[:, None, :]
    scatter = _pooled(np.array([blocks.scatter() for blocks in held]) / square, modules) * square
    means = np.array([blocks.grams.mean(axis=0) for blocks in held])
    size = (_entries(means) / units).sum(axis=1)
    unread = np.maximum(1 - read / np.maximum(numel, 1), 0.0)
    steps = _roots(scatter * (scale**2 * unread / number)[:, None, None])
    # Towards the module's mean: that way lies what rows that stand out, missed or hit, have hidden.
    steps[(steps.sum(axis=2) > 0) != (size < _pooled(size, modules))[:, None]] *= -1
    return Estimate(
        gram=from_difference_basis(means * scale[:, None, None]),
        deviations=from_difference_basis(_symmetric(steps, means.shape[1])),
        part=min(1.0, float(read.sum() / max(numel.sum(), 1))),
    )


def _pooled(scatter: Floats, modules: Sequence[str]) -> Floats:
    """Each module's mean, for each of its tensors."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, module in enumerate(modules):
        members[module].append(row)
    found = scatter.copy()
    for rows in members.values():
        found[rows] = scatter[rows].mean(axis=0)
    return found


def _roots(covariance: Floats) -> Floats:
    """Vectors whose outer products add up to each covariance, (T, p, p), as rows."""
    values, vectors = np.linalg.eigh(covariance)
    roots: Floats = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return roots.transpose(0, 2, 1)


def _entries(grams: Floats) -> Floats:
    """The distinct entries of symmetric matrices, (…, n, n) to (…, p)."""
    rows, columns = np.tril_indices(grams.shape[-1])
    found: Floats = grams[..., rows, columns]
    return found


def _symmetric(entries: Floats, size: int) -> Floats:
    """The inverse of `_entries`."""
    found = np.zeros((*entries.shape[:-1], size, size))
    lower, upper = np.tril_indices(size)
    found[..., lower, upper] = found[..., upper, lower] = entries
    return found
