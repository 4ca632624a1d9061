"""Merging by token: every token's row is what the stages, one by one, make of its rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.merge.coefficients import settings_of
from studio.merge.gradient import constant
from studio.merge.layout import Layout
from studio.merge.methods import METHODS
from studio.merge.recipe import Input, Recipe, Slice, Stage
from studio.merge.tokens.aligned import filled_gram, solve_groups
from studio.merge.tokens.alignment import Alignment, Token, align, fill, tokens_of
from studio.merge.tokens.vocabulary import Vocabulary

WIDTH = 5
ONE = Layout(("model.embed_tokens.weight",), np.array([-1]), 1)
Sources = Mapping[str, tuple[Token, ...]]
A: tuple[Token, ...] = ("<s>", "a", "b")
B: tuple[Token, ...] = ("<s>", "a", "b", "<pad>", 4)
C: tuple[Token, ...] = ("<s>", "b", "a", "<im>", "<pad>")


def stage(name: str | None, tokenizer: str | None, *models: str, method: str = "slerp") -> Stage:
    if method == "slerp":
        own = {"t": constant(0.4)}
    else:
        own = {"weight": constant(0.7)} if method != "karcher" else {}
    inputs = tuple(Input(model) for model in models)
    return Stage(method, (Slice(inputs),), name, own, tokenizer=tokenizer)


def rows_one_by_one(recipe: Recipe, tokens: Sources, x: Mapping[str, np.ndarray]) -> np.ndarray:
    """The result's rows, every stage laid out and merged by itself, in the order of its tokens."""
    known = {m: dict(zip(tokens[m], x[m], strict=True)) for m in tokens}
    for step in recipe.stages:
        inputs = [known[model] for model in step.models]
        if step.tokenizer is None:
            out = list(inputs[0])
        else:
            first = known[step.tokenizer] if step.tokenizer in known else inputs[0]
            out = list(first)
            while isinstance(out[-1], int):
                out.pop()
            if step.tokenizer == "union":
                out += [t for rows in inputs for t in rows if isinstance(t, str)]
                out = list(dict.fromkeys(out))
        laid_out = np.zeros((len(inputs), len(out), WIDTH))
        for row, token in enumerate(out):
            owners = [rows for rows in inputs if token in rows]
            spare = (
                inputs[0][token] if token in inputs[0] else np.mean([o[token] for o in owners], 0)
            )
            for number, rows in enumerate(inputs):
                laid_out[number, row] = rows.get(token, spare)
        flat = laid_out.reshape(len(inputs), -1)
        values = settings_of(Recipe((step,)), ONE)[0]
        share = METHODS[step.method].coefficients((flat @ flat.T)[None], values)[0]
        mixed = np.einsum("k,krw->rw", share, laid_out)
        known[step.name or "result"] = dict(zip(out, mixed, strict=True))
    return np.stack(list(known[recipe.final.name or "result"].values()))


def grams_of(recipe: Recipe, alignment: Alignment, x: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of every group's rows, as the pass measures them."""
    count = len(recipe.sources)
    found = np.zeros((len(alignment.present), count, count))
    for run in alignment.runs:
        part = np.zeros((count, run.count, WIDTH))
        for number in run.present:
            start = run.starts[number]
            part[number] = x[recipe.sources[number]][start : start + run.count]
        flat = part.reshape(count, -1)
        found[run.group] += flat @ flat.T
    return found


def aligned_rows(recipe: Recipe, alignment: Alignment, x: Mapping[str, np.ndarray]) -> np.ndarray:
    """The result's rows by the alignment: each group's weights on the sources' rows."""
    weights = solve_groups(
        recipe, grams_of(recipe, alignment, x), settings_of(recipe, ONE), alignment
    )
    rows = np.zeros((alignment.rows, WIDTH))
    for run in alignment.runs:
        for number in run.present:
            if run.at < alignment.rows:
                start = run.starts[number]
                part = x[recipe.sources[number]][start : start + run.count]
                rows[run.at : run.at + run.count] += weights[run.group, number] * part
    return rows


def vectors(tokens: Sources, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {model: rng.normal(size=(len(rows), WIDTH)) for model, rows in tokens.items()}


@pytest.mark.parametrize(
    ("tokenizer", "models", "expected"),
    [
        ("base", "AB", A),
        ("base", "BA", ("<s>", "a", "b", "<pad>")),
        ("base", "CA", C),
        ("union", "AB", ("<s>", "a", "b", "<pad>")),
        ("union", "AC", ("<s>", "a", "b", "<im>", "<pad>")),
        ("union", "BC", ("<s>", "a", "b", "<pad>", "<im>")),
        ("C", "AC", C),
        ("B", "AB", ("<s>", "a", "b", "<pad>")),
    ],
)
def test_vocabulary_of_a_stage(tokenizer: str, models: str, expected: tuple[Token, ...]) -> None:
    """Rows behind the last token are dropped; the ids of the first tokenizer stay."""
    recipe = Recipe((stage(None, tokenizer, *models),))
    sources = {name: {"A": A, "B": B, "C": C}[name] for name in models}
    alignment = align(recipe, sources)
    assert alignment.tokens == expected
    assert alignment.origin == (tokenizer if len(tokenizer) == 1 else models[0])


def test_equal_vocabularies_are_one_run() -> None:
    recipe = Recipe((stage("x", "base", "A", "B"), stage(None, "base", "x", "C")))
    alignment = align(recipe, dict.fromkeys("ABC", A))
    (run,) = alignment.runs
    assert (run.at, run.count, run.starts) == (0, 3, (0, 0, 0))
    assert alignment.notes == ()


def test_notes_tell_what_is_filled_in() -> None:
    recipe = Recipe((stage("x", "union", "A", "B"), stage(None, "union", "x", "C")))
    notes = align(recipe, {"A": A, "B": B, "C": C}).notes
    assert notes == (
        "stage x: A lacks 1 ('<pad>') of 4 tokens; they take the rows of the models that have them",
        "stage Result: x lacks 1 ('<im>') of 5 tokens; they take the rows of the models that have "
        "them",
    )


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ([True, True], [[1, 0], [0, 1]]),
        ([True, False], [[1, 0], [1, 0]]),
        ([False, True], [[0, 1], [0, 1]]),
        ([False, True, True], [[0, 0.5, 0.5], [0, 1, 0], [0, 0, 1]]),
        ([True, True, False], [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        ([False, False], [[0, 0], [0, 0]]),
    ],
)
def test_missing_token_takes_the_only_owner_the_base_or_the_mean(
    has: list[bool], expected: list[list[float]]
) -> None:
    assert fill(has).tolist() == expected


RECIPES = {
    "one stage": Recipe((stage(None, "union", "A", "C"),)),
    "three in one": Recipe((stage(None, "union", "A", "B", "C", method="karcher"),)),
    "on a base": Recipe((stage(None, "base", "A", "B", "C", method="task_arithmetic"),)),
    "base lacks, two have": Recipe((stage(None, "C", "A", "B", "C", method="karcher"),)),
    "house": Recipe(
        (stage("x", "base", "A", "B"), stage("y", "union", "B", "C"),
         stage(None, "union", "x", "y"))
    ),
    "house, all base": Recipe(
        (stage("x", "base", "A", "B"), stage("y", "base", "B", "C"), stage(None, "base", "x", "y"))
    ),
    "a token that only a part has": Recipe(
        (stage("x", "union", "A", "C"), stage(None, "A", "A", "x"))
    ),
    "into another's": Recipe((stage("x", "C", "A", "C"), stage(None, "x", "B", "x"))),
}  # fmt: skip


@pytest.mark.parametrize("title", RECIPES)
def test_rows_are_the_stages_one_by_one(title: str) -> None:
    recipe = RECIPES[title]
    tokens = {name: {"A": A, "B": B, "C": C}[name] for name in recipe.sources}
    x = vectors(tokens)
    alignment = align(recipe, tokens)
    expected = rows_one_by_one(recipe, tokens, x)
    assert aligned_rows(recipe, alignment, x) == pytest.approx(expected, abs=1e-12)


def test_stage_without_tokenizer_keeps_equal_rows_and_refuses_others() -> None:
    equal = Recipe((stage("x", None, "B", "D"), stage(None, "union", "x", "C")))
    tokens = {"B": B, "D": B, "C": C}
    x = vectors(tokens)
    found = aligned_rows(equal, align(equal, tokens), x)
    assert found == pytest.approx(rows_one_by_one(equal, tokens, x), abs=1e-12)
    with pytest.raises(StudioError, match="stage x: .* B and D differ.*tokenizer_source"):
        align(equal, tokens | {"D": A})


def test_filled_gram_of_one_stage_is_that_of_its_inputs() -> None:
    recipe = RECIPES["three in one"]
    tokens = {"A": A, "B": B, "C": C}
    x = vectors(tokens)
    alignment = align(recipe, tokens)
    inputs = []
    for model in recipe.sources:
        rows = []
        for token in alignment.tokens:
            owners = [m for m in recipe.sources if token in tokens[m]]
            if model in owners:
                chosen = [model]
            else:
                chosen = ["A"] if "A" in owners else owners
            rows.append(np.mean([x[m][tokens[m].index(token)] for m in chosen], axis=0))
        inputs.append(np.concatenate(rows))
    stacked = np.stack(inputs)
    assert filled_gram(grams_of(recipe, alignment, x), alignment) == pytest.approx(
        stacked @ stacked.T
    )


def test_tokens_of_rows_without_and_with_the_same_token() -> None:
    vocabulary = Vocabulary({0: "a", 1: "b", 3: "a", 9: "z"})
    assert tokens_of(vocabulary, 5) == ("a", "b", 2, 3, 4)
    assert tokens_of(vocabulary, 2) == ("a", "b")


def test_fingerprint_tells_alignments_apart() -> None:
    recipe = Recipe((stage(None, "union", "A", "C"),))
    one = align(recipe, {"A": A, "C": C})
    assert one.fingerprint == align(recipe, {"A": A, "C": C}).fingerprint
    others = [
        align(recipe, {"A": A, "C": (*C, "<new>")}),
        align(recipe, {"A": (A[0], A[2], A[1]), "C": C}),
        align(Recipe((stage(None, "base", "A", "C"),)), {"A": A, "C": C}),
        align(Recipe((stage(None, "union", "C", "A"),)), {"A": A, "C": C}),
    ]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 5


WORDS: Sequence[Token] = [f"w{i}" for i in range(9)]


@st.composite
def vocabularies(draw: st.DrawFn) -> dict[str, tuple[Token, ...]]:
    found: dict[str, tuple[Token, ...]] = {}
    for name in "ABC":
        words = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=9, unique=True))
        gap = draw(st.integers(0, len(words)))
        rows: list[Token] = [*words[:gap], gap, *words[gap:]] if draw(st.booleans()) else [*words]
        found[name] = (*rows, *range(len(rows), len(rows) + draw(st.integers(0, 2))))
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_recipe_on_any_vocabularies_is_its_stages_one_by_one(data: st.DataObject) -> None:
    tokens = data.draw(vocabularies())
    known = ["A", "B", "C"]
    stages = []
    for number in range(data.draw(st.integers(1, 3))):
        method = data.draw(st.sampled_from(["slerp", "karcher", "task_arithmetic", "linear"]))
        models = data.draw(st.permutations(known))[: 2 if method == "slerp" else 3]
        if number and known[-1] not in models:
            models[-1] = known[-1]
        tokenizer = data.draw(st.sampled_from(["base", "union", *models]))
        stages.append(stage(f"step-{number}", tokenizer, *models, method=method))
        known.append(f"step-{number}")
    recipe = Recipe(tuple(stages))
    used = {name: tokens[name] for name in recipe.sources}
    x = vectors(used)
    expected = rows_one_by_one(recipe, used, x)
    assert aligned_rows(recipe, align(recipe, used), x) == pytest.approx(expected, abs=1e-9)
