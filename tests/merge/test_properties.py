"""What must hold for every recipe and every tensor, found wanting by search, not by example.

Sources are drawn at all angles: unrelated, nearly parallel, nearly opposite, equal and zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from studio.merge.coefficients import settings_of, solve
from studio.merge.gradient import Rule, constant
from studio.merge.layout import Layout
from studio.merge.methods import METHODS
from studio.merge.recipe import Input, Recipe, Slice, Stage
from studio.weights import cpu_kernels
from studio.weights.elements import Flat
from studio.weights.gram import from_difference_basis
from studio.weights.torch_kernels import OnDevice

SEARCH = settings(max_examples=100, deadline=None, derandomize=True)
NAME = "model.layers.0.mlp.up_proj.weight"
ONE = Layout((NAME,), np.array([0]), 1)
OTHERS = ("linear", "task_arithmetic", "karcher", "model_stock")
THRESHOLD, AROUND = 0.9995, 1e-6

ts = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5, 1e-9]) | st.floats(-1, 2)
seeds = st.integers(0, 10_000)


@dataclass(frozen=True)
class Step:
    """One merge of earlier results, by number; the sources come first."""

    method: str
    inputs: tuple[int, ...]
    amounts: tuple[float, float]


@st.composite
def sources(draw: st.DrawFn, count: int = 3) -> np.ndarray:
    """(count, 400) float64 vectors, exactly representable in float32."""
    rng = np.random.default_rng(draw(seeds))
    base = rng.normal(size=400)
    made = [base]
    for _ in range(count - 1):
        kind = draw(st.sampled_from(["far", "near", "opposite", "equal", "zero", "scaled"]))
        noise = rng.normal(size=400)
        near = base + draw(st.sampled_from([1e-4, 0.01, 0.03, 0.2])) * noise
        made.append(
            {"far": noise, "near": near, "opposite": -near, "equal": base, "zero": 0 * base,
             "scaled": near * draw(st.sampled_from([1e-3, 40.0]))}[kind]
        )  # fmt: skip
    order = draw(st.permutations(range(count)))
    return np.float32(np.stack(made)[list(order)]).astype(np.float64)


@st.composite
def steps(draw: st.DrawFn, count: int = 3) -> list[Step]:
    """A deep recipe: each step takes some of what is there, the last one the step before it."""
    made: list[Step] = []
    for number in range(draw(st.integers(1, 5))):
        known = list(range(count + number))
        method = draw(st.sampled_from(["slerp", "slerp", *OTHERS]))
        inputs = draw(st.permutations(known))[: 2 if method == "slerp" else 3]
        if number and known[-1] not in inputs:
            inputs[-1] = known[-1]
        made.append(Step(method, tuple(inputs), (draw(ts), draw(st.floats(0.1, 2)))))
    return made


def recipe_of(made: list[Step], count: int = 3) -> Recipe:
    names = [f"source-{i}" for i in range(count)] + [f"step-{i}" for i in range(len(made))]
    stages = []
    for number, step in enumerate(made):
        models = [names[i] for i in step.inputs]
        first, second = (constant(amount) for amount in step.amounts)
        inputs = [Input(m) for m in models]
        own = {}
        if step.method == "slerp":
            own = {"t": first}
        elif step.method in ("linear", "task_arithmetic"):
            weights = (constant(1.0), second, constant(0.5))
            inputs = [Input(m, {"weight": w}) for m, w in zip(models, weights, strict=True)]
            own = {"lambda": first} if step.method == "task_arithmetic" else {}
        stages.append(Stage(step.method, (Slice(tuple(inputs)),), names[count + number], own))
    return Recipe(tuple(stages))


def one_by_one(made: list[Step], x: np.ndarray) -> np.ndarray:
    """Every stage's result as a vector, in float64, the way mergekit goes."""
    known = list(x)
    for step in made:
        inputs = [known[i] for i in step.inputs]
        amount, weight = step.amounts
        if step.method == "slerp":
            made_of = slerp(*inputs, amount)
        elif step.method == "linear":
            made_of = (inputs[0] + weight * inputs[1] + 0.5 * inputs[2]) / (1.5 + weight)
        elif step.method == "task_arithmetic":
            base, a, b = inputs
            made_of = base + amount * (weight * (a - base) + 0.5 * (b - base))
        elif step.method == "karcher":
            made_of = karcher(inputs)
        else:
            made_of = model_stock(inputs)
        known.append(made_of)
    return known[-1]


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    norms = [n if n > 1e-8 else 1.0 for n in (np.linalg.norm(a), np.linalg.norm(b))]
    cosine = np.clip((a / norms[0]) @ (b / norms[1]), -1, 1)
    assume(abs(abs(cosine) - THRESHOLD) > AROUND)
    if abs(cosine) > THRESHOLD:
        return (1 - t) * a + t * b
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def karcher(inputs: list[np.ndarray]) -> np.ndarray:
    norms = [np.linalg.norm(x) for x in inputs]
    assume(all(abs(norm - 1e-5) > 1e-9 for norm in norms))
    units = [x / n for x, n in zip(inputs, norms, strict=True) if n > 1e-5]
    if not units:
        return np.zeros_like(inputs[0])
    mean = np.mean(units, axis=0)
    assume(np.linalg.norm(mean) > 1e-3)  # where it begins is no matter of rounding
    mean = mean / np.linalg.norm(mean)
    for _ in range(10):
        cosines = [np.clip(mean @ unit, -1, 1) for unit in units]
        assume(min(cosines) > -0.999)
        parts = [
            np.arccos(c) / np.sin(np.arccos(c)) * (u - c * mean)
            for c, u in zip(cosines, units, strict=True)
            if np.arccos(c) >= 1e-5
        ]
        tangent = sum(parts, np.zeros_like(mean)) / len(units)
        step = np.linalg.norm(tangent)
        if step < 1e-5:
            break
        mean = np.cos(step) * mean + np.sin(step) * tangent / step
        mean /= np.linalg.norm(mean)
    return mean * np.mean(norms)


def model_stock(inputs: list[np.ndarray]) -> np.ndarray:
    base, a, b = inputs
    norms = [np.linalg.norm(a - base), np.linalg.norm(b - base)]
    # A product of whole vectors keeps too few digits of differences that are smaller.
    assume(min(norms) > 0.005 * np.linalg.norm(inputs, axis=1).max())
    cosine = float((a - base) @ (b - base) / norms[0] / norms[1])
    assume(abs(1 + cosine) > 1e-3)
    t = 2 * cosine / (1 + cosine)
    return t * (a + b) / 2 + (1 - t) * base


def weights_of(recipe: Recipe, products: np.ndarray) -> np.ndarray:
    """The weights of source-0, source-1, … in the result."""
    used = [int(source.removeprefix("source-")) for source in recipe.sources]
    inner = products[np.ix_(used, used)][None]
    found = np.zeros(len(products))
    found[used] = solve(recipe, inner, settings_of(recipe, ONE))[-1].weights[0]
    return found


def coefficients(x: np.ndarray, t: float) -> np.ndarray:
    return METHODS["slerp"].coefficients((x @ x.T)[None], {"t": np.array([t])})[0]


@SEARCH
@given(steps(), sources())
def test_mix_of_a_deep_recipe_is_its_stages_one_by_one(made: list[Step], x: np.ndarray) -> None:
    expected = one_by_one(made, x)
    result = weights_of(recipe_of(made), x @ x.T) @ x
    scale = max(np.linalg.norm(expected), np.linalg.norm(x, axis=1).max())
    assert np.linalg.norm(result - expected) <= 1e-9 * scale


@pytest.mark.parametrize(
    "kernels",
    [cpu_kernels, OnDevice(3, "cpu")],
    ids=["cpu", "device"],
)
@SEARCH
@given(steps(), sources())
def test_engine_kernels_give_the_stages_one_by_one(
    kernels: Any, made: list[Step], x: np.ndarray
) -> None:
    """The same with the engine's own Gram matrix and its mix in float32."""
    expected = one_by_one(made, x)
    rows = x.astype(np.float32)
    flats = [Flat("F32", row.view(np.uint8)) for row in rows]
    gram = from_difference_basis(kernels.partial_gram(flats))
    weights = weights_of(recipe_of(made), gram)
    out = np.empty(x.shape[1], np.float32)
    kernels.mix(flats, weights.tolist(), Flat("F32", out.view(np.uint8)))
    norms = np.linalg.norm(x, axis=1)
    scale = max(np.abs(weights) @ norms, norms.max())
    assert np.linalg.norm(out.astype(float) - expected) <= 2e-7 * scale


@SEARCH
@given(sources(2))
def test_t_of_0_and_1_give_the_ends(x: np.ndarray) -> None:
    assert np.allclose(coefficients(x, 0.0), [1, 0], rtol=0, atol=1e-12)
    assert np.allclose(coefficients(x, 1.0), [0, 1], rtol=0, atol=1e-12)


@SEARCH
@given(sources(2), ts)
def test_swapping_base_and_turning_t_round_is_the_same(x: np.ndarray, t: float) -> None:
    swapped = coefficients(x[::-1], 1 - t)[::-1]
    assert np.allclose(coefficients(x, t), swapped, rtol=1e-9, atol=1e-9)


@SEARCH
@given(sources(2), st.floats(0, 1), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_coefficients_do_not_see_positive_scale(
    x: np.ndarray, t: float, first: float, second: float
) -> None:
    assume((np.linalg.norm(x, axis=1) > 0).all())
    cosine = x[0] @ x[1] / np.linalg.norm(x[0]) / np.linalg.norm(x[1])
    assume(abs(abs(cosine) - THRESHOLD) > AROUND)
    scaled = x * np.array([[first], [second]])
    assert np.allclose(coefficients(x, t), coefficients(scaled, t), rtol=1e-7, atol=1e-7)


@SEARCH
@given(sources(2), st.floats(0, 1))
def test_equal_sources_stay_as_they_are(x: np.ndarray, t: float) -> None:
    same = x[[0, 0]]
    assert np.allclose(coefficients(same, t) @ same, x[0], rtol=1e-12, atol=1e-12)


@SEARCH
@given(st.floats(0.05, 3.0), st.floats(0, 1), seeds)
def test_result_of_unit_vectors_is_a_unit_vector(angle: float, t: float, seed: int) -> None:
    """And it lies at t of the angle from the base."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(50, 2)))
    x = np.stack([q[:, 0], np.cos(angle) * q[:, 0] + np.sin(angle) * q[:, 1]])
    y = coefficients(x, t) @ x
    assert abs(np.linalg.norm(y) - 1) < 1e-9
    assert abs(y @ x[0] - np.cos(t * angle)) < 1e-9


@SEARCH
@given(sources(2), ts)
def test_coefficients_are_finite_for_all_angles_and_zeros(x: np.ndarray, t: float) -> None:
    assert np.isfinite(coefficients(x, t)).all()
    assert np.isfinite(coefficients(0 * x, t)).all()
    assert np.isfinite(coefficients(x * np.array([[1.0], [0.0]]), t)).all()


@SEARCH
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=6), st.integers(1, 90))
def test_gradient_stays_between_neighbouring_anchors(anchors: list[float], layers: int) -> None:
    """It starts at the first anchor, ends at the last and never leaves their range."""
    names = tuple(f"h.{i}.w" for i in range(layers))
    where = Layout(names, np.arange(layers), layers)
    models = (Slice((Input("A"), Input("B"))),)
    recipe = Recipe((Stage("slerp", models, None, {"t": (Rule(tuple(anchors)),)}),))
    values = settings_of(recipe, where)[0]["t"]
    assert values[-1] == anchors[-1]
    assert layers == 1 or values[0] == anchors[0]
    assert min(anchors) - 1e-12 <= values.min() <= values.max() <= max(anchors) + 1e-12
    spacing = 1 / max(len(anchors) - 1, 1)
    steepest = max(np.abs(np.diff(anchors)), default=0.0) / spacing
    assert (np.abs(np.diff(values)) <= steepest / max(layers - 1, 1) + 1e-12).all()
