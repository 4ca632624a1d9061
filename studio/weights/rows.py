"""Tensors whose rows lie elsewhere in every source: which rows, in runs that need no copy."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
ABSENT = -1  # the row of a source that has none


@dataclass(frozen=True, slots=True)
class Run:
    """`count` rows from row `at` on that follow each other in every source.

    `starts`: the first of them in each source, or ABSENT. `group`: what the rows have in common,
    for whoever made them.
    """

    at: int
    count: int
    starts: tuple[int, ...]
    group: int

    @property
    def present(self) -> tuple[int, ...]:
        """The numbers of the sources that have these rows."""
        return tuple(number for number, start in enumerate(self.starts) if start != ABSENT)

    def cut(self, first: int, stop: int) -> "Run":
        """Those of the rows that are among the rows first … stop - 1; at least one must be."""
        begin, end = max(self.at, first), min(self.at + self.count, stop)
        assert begin < end, (self, first, stop)
        starts = tuple(s if s == ABSENT else s + begin - self.at for s in self.starts)
        return Run(begin, end - begin, starts, self.group)


def runs_of(table: Integers, groups: Sequence[int]) -> tuple[Run, ...]:
    """The fewest runs of a table (R, n) of each row's place in every source, or ABSENT.

    `groups`: (R,); no run holds rows of two.
    """
    if not len(table):
        return ()
    steps = np.diff(table, axis=0)
    follows = np.where(table[:-1] == ABSENT, steps == 0, steps == 1).all(axis=1)
    same = np.diff(np.asarray(groups)) == 0
    first = np.flatnonzero(np.concatenate([[True], ~(follows & same)]))
    counts = np.diff([*first, len(table)])
    return tuple(
        Run(int(at), int(count), tuple(table[at].tolist()), int(groups[at]))
        for at, count in zip(first, counts, strict=True)
    )


def runs_within(runs: Sequence[Run], first: int, stop: int) -> Iterator[Run]:
    """The runs, cut to the rows first … stop - 1."""
    begin = bisect_right(runs, first, key=lambda run: run.at) - 1
    for number in range(max(begin, 0), len(runs)):
        run = runs[number]
        if run.at >= stop:
            return
        if run.at + run.count > first:
            yield run.cut(first, stop)
