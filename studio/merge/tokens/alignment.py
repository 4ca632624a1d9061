"""Merging by token: which row of which source a token of the result is mixed from.

Where tokenizers differ, a row of the embeddings means another token in every model. A stage with a
tokenizer lays its inputs' rows out by the tokens of its own vocabulary, and gives a token that an
input lacks, by mergekit's rule, the row of the only input that has it, or else the base's if it has
one, or else the mean of all that have it. Rows of an input behind its last token mean nothing and
are dropped; a stage without a tokenizer merges row by row and keeps them.

So tokens fall into groups: those of one group are in the same inputs of all stages, and all their
rows are the same mix of the sources' rows. A token that is in no source but one is that source's
row times a number, whatever the depth of the recipe.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from studio.errors import StudioError
from studio.merge.gradient import Floats
from studio.merge.recipe import Recipe, Stage
from studio.merge.tokens.vocabulary import Vocabulary
from studio.weights.rows import ABSENT, Run, runs_of

Token = str | int
"""A token by its text; the number of a row that belongs to none."""

SHOWN = 3


@dataclass(frozen=True, slots=True)
class StageTokens:
    """What a stage of k inputs does with each of C groups of tokens.

    `fills`: (C, k, k), of which inputs' rows each input's is made. `counts`: (C,), whether the
    group is in the stage's vocabulary.
    """

    fills: Floats
    counts: Floats


@dataclass(frozen=True)
class Alignment:
    """The rows of an aligned recipe's vocabulary tensors.

    `tokens`: of the result's rows. `runs`: the result's rows, then those that only measuring needs,
    because an earlier stage has them. `stages`: of the recipe, in order. `origin`: the source whose
    tokenizer the result's begins with. `notes`: which tokens had to be filled in.
    """

    tokens: tuple[Token, ...]
    runs: tuple[Run, ...]
    stages: tuple[StageTokens, ...]
    origin: str
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Of the result."""
        return len(self.tokens)

    @cached_property
    def present(self) -> dict[int, tuple[int, ...]]:
        """The sources that have the tokens of each group."""
        return {run.group: run.present for run in self.runs}

    @cached_property
    def main(self) -> int:
        """The group of most of the result's rows."""
        sizes = [0] * len(self.present)
        for run in self.runs:
            sizes[run.group] += run.count if run.at < self.rows else 0
        return int(np.argmax(sizes))

    @cached_property
    def fingerprint(self) -> str:
        """Equal where equal sources give equal tensors and the result has the same tokens."""
        stages = [(stage.fills.tolist(), stage.counts.tolist()) for stage in self.stages]
        content = repr((self.tokens, self.runs, stages, self.origin))
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def vocabulary_of(recipe: Recipe) -> str | None:
    """Where the result's vocabulary comes from: "base", "union" or a source; None if by row.

    "base" is the recipe's; a union of a part of the sources counts as one of all.
    """
    if not recipe.is_aligned:
        return None
    by_name = {stage.name: stage for stage in recipe.stages if stage.name}
    stage = recipe.final
    while stage.tokenizer != "union":
        first = _first(stage)
        if first not in by_name:
            return "base" if first == recipe.base else first
        stage = by_name[first]
    return "union"


def tokens_of(vocabulary: Vocabulary, rows: int) -> tuple[Token, ...]:
    """The tokens of a model's rows; a token of a higher id has no row and does not count."""
    found: dict[Token, None] = {}
    for row in range(rows):
        token: Token = vocabulary.by_id.get(row, row)
        found[row if token in found else token] = None
    return tuple(found)


def align(recipe: Recipe, sources: Mapping[str, tuple[Token, ...]]) -> Alignment:
    """The alignment of a recipe; `sources`: the tokens of every source's rows.

    Raises StudioError for a stage without a tokenizer whose inputs differ.
    """
    known = dict(sources)
    origins = {model: model for model in sources}
    vocabularies = []
    notes: list[str] = []
    for stage in recipe.stages:
        tokens = _vocabulary(stage, known)
        notes += _notes(stage, known, tokens)
        vocabularies.append(tokens)
        if stage.name is not None:
            known[stage.name] = tokens
            origins[stage.name] = origins[_first(stage)]
    result = vocabularies[-1]
    every = tuple(dict.fromkeys(t for tokens in (result, *vocabularies) for t in tokens))
    groups, stages = _groups(recipe, known, vocabularies, every)
    return Alignment(
        tokens=result,
        runs=_runs(every, len(result), [sources[model] for model in recipe.sources], groups),
        stages=tuple(stages),
        origin=origins[_first(recipe.final)],
        notes=tuple(notes),
    )


def _first(stage: Stage) -> str:
    """The input whose tokenizer the stage's begins with."""
    return stage.models[0] if stage.tokenizer in (None, "base", "union") else stage.tokenizer


def _vocabulary(stage: Stage, known: Mapping[str, tuple[Token, ...]]) -> tuple[Token, ...]:
    tokens = known[_first(stage)]
    if stage.tokenizer is None:
        if other := [model for model in stage.models if known[model] != tokens]:
            raise StudioError(
                f"stage {stage.title}: the vocabularies of {stage.models[0]} and {other[0]} differ "
                "and the stage merges row by row; give it a tokenizer_source as well"
            )
        return tokens
    last = max((row for row, token in enumerate(tokens) if isinstance(token, str)), default=-1)
    tokens = tokens[: last + 1]
    if stage.tokenizer != "union":
        return tokens
    everyone = dict.fromkeys(tokens)
    for model in stage.models:
        everyone |= dict.fromkeys(t for t in known[model] if isinstance(t, str))
    return tuple(everyone)


def _notes(
    stage: Stage, known: Mapping[str, tuple[Token, ...]], tokens: Sequence[Token]
) -> list[str]:
    found = []
    for model in stage.models:
        own = set(known[model])
        if lacks := [token for token in tokens if token not in own]:
            found.append(
                f"stage {stage.title}: {model} lacks {examples(lacks)} of {len(tokens):,} tokens; "
                "they take the rows of the models that have them"
            )
    return found


def examples(tokens: Sequence[Token]) -> str:
    """How many tokens these are, and the first of them."""
    shown = ", ".join(repr(token)[:40] for token in tokens[:SHOWN])
    return f"{len(tokens):,} ({shown}{', …' if len(tokens) > SHOWN else ''})"


def _groups(
    recipe: Recipe,
    known: Mapping[str, tuple[Token, ...]],
    vocabularies: Sequence[tuple[Token, ...]],
    every: Sequence[Token],
) -> tuple[list[int], list[StageTokens]]:
    """The group of every token, and the stages' rules for the groups."""
    held = {model: set(tokens) for model, tokens in known.items()}
    kept = [set(tokens) for tokens in vocabularies]
    numbers: dict[tuple[bool, ...], int] = {}
    groups: list[int] = []
    models = list(held)
    for token in every:
        signature = (*(token in held[m] for m in models), *(token in tokens for tokens in kept))
        groups.append(numbers.setdefault(signature, len(numbers)))
    stages = []
    for at, stage in enumerate(recipe.stages):
        has = [[mark[models.index(m)] for m in stage.models] for mark in numbers]
        counts = np.array([mark[len(models) + at] for mark in numbers], dtype=float)
        stages.append(StageTokens(np.stack([fill(row) for row in has]), counts))
    return groups, stages


def fill(has: Sequence[bool]) -> Floats:
    """Of which inputs' rows each input's row of a token is made, (k, k); the base is the first.

    `has`: which of the inputs have the token.
    """
    owners = np.array(has, dtype=float)
    stand_in = owners / max(owners.sum(), 1.0)
    if has[0]:
        stand_in = np.eye(len(has))[0]
    found: Floats = np.where(owners[:, None] > 0, np.eye(len(has)), stand_in)
    return found


def _runs(
    every: Sequence[Token],
    rows: int,
    sources: Iterable[tuple[Token, ...]],
    groups: Sequence[int],
) -> tuple[Run, ...]:
    """The runs of the result's `rows` and, from there on, of those that are measured only."""
    columns = []
    for tokens in sources:
        row_of = {token: row for row, token in enumerate(tokens)}
        columns.append([row_of.get(token, ABSENT) for token in every])
    table = np.array(columns, dtype=np.int64).T
    result = runs_of(table[:rows], groups[:rows])
    rest = runs_of(table[rows:], groups[rows:])
    return (*result, *(Run(run.at + rows, run.count, run.starts, run.group) for run in rest))
