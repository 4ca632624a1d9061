"""The weights of the sources in a result, against vectors mixed one stage after the other."""

import numpy as np
import pytest

from studio.errors import StudioError
from studio.merge.coefficients import StageMix, settings_of, solve
from studio.merge.layout import Layout
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.checkpoints import Toy

HOUSE = """\
name: one
merge_method: slerp
base_model: A
models: [{model: A}, {model: B}]
parameters: {t: [0.25, 0.3, 0.5]}
---
name: two
merge_method: slerp
base_model: B
models: [{model: B}, {model: C}]
parameters: {t: [0.4, 0.3, 0.25]}
---
merge_method: slerp
base_model: one
models: [{model: one}, {model: two}]
parameters: {t: 0.5}
"""
OTHERS = """\
merge_method: {}
{}models: [{{model: A}}, {{model: B}}, {{model: C}}]
"""
SLICED = """\
merge_method: slerp
base_model: A
slices:
  - sources: [{model: A, layer_range: [0, 2]}, {model: B, layer_range: [0, 2]}]
    parameters: {t: [0.1, 0.2]}
  - sources: [{model: A, layer_range: [2, 3]}, {model: B, layer_range: [2, 3]}]
    parameters: {t: [0.3, 0.4]}
  - sources: [{model: A, layer_range: [3, 6]}, {model: B, layer_range: [3, 6]}]
parameters: {t: [{filter: mlp, value: 0.9}, {value: [0.5, 0.8]}]}
"""
LINEAR = """\
merge_method: linear
models:
  - {model: A, parameters: {weight: [{filter: mlp, value: 3}]}}
  - {model: B}
  - {model: C, parameters: {weight: [1, 2]}}
parameters: {weight: 0.5, normalize: [{filter: head, value: false}, {value: true}]}
"""


def layout(layers: int = 6) -> Layout:
    return Layout.of(list(Toy(layers=layers).tensors()), layers)


def vectors(count: int, rows: int, seed: int = 7) -> np.ndarray:
    """(T, n, 50): far-apart sources of different norms for T tensors."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, count, 50)) * rng.uniform(0.3, 3, size=(rows, count, 1))


def solved(recipe: Recipe, where: Layout, x: np.ndarray) -> list[StageMix]:
    return solve(recipe, x @ x.transpose(0, 2, 1), settings_of(recipe, where))


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def test_weights_of_the_house_recipe_are_the_stages_done_one_by_one() -> None:
    recipe, where = load_recipe(HOUSE), layout()
    x = vectors(3, len(where.names))
    result = solved(recipe, where, x)[-1]
    for row, layer in enumerate(np.maximum(where.layers, 0)):
        position = layer / 5
        one = slerp(x[row, 0], x[row, 1], np.interp(position, [0, 0.5, 1], [0.25, 0.3, 0.5]))
        two = slerp(x[row, 1], x[row, 2], np.interp(position, [0, 0.5, 1], [0.4, 0.3, 0.25]))
        assert result.weights[row] @ x[row] == pytest.approx(slerp(one, two, 0.5), rel=1e-12)


def test_stages_tell_their_models_values_and_angle() -> None:
    recipe, where = load_recipe(HOUSE), layout()
    x = vectors(3, len(where.names))
    one, two, final = solved(recipe, where, x)
    assert (one.title, two.title, final.title) == ("one", "two", "Result")
    assert (one.models, final.models) == (("A", "B"), ("one", "two"))
    assert one.values["t"][where.names.index("lm_head.weight")] == 0.25
    angle = x[0, 1] @ x[0, 2] / np.linalg.norm(x[0, 1]) / np.linalg.norm(x[0, 2])
    assert two.cosine is not None
    assert two.cosine[0] == pytest.approx(angle)
    assert (two.weights[:, 0] == 0).all()
    made = np.einsum("tk,tkn->tn", final.coefficients, np.stack([one.weights, two.weights], 1))
    assert made == pytest.approx(final.weights)


@pytest.mark.parametrize(
    ("tensor", "t"),
    [
        ("model.embed_tokens.weight", 0.1),
        ("model.layers.0.input_layernorm.weight", 0.1),
        ("model.layers.1.input_layernorm.weight", 0.2),
        ("model.layers.1.mlp.up_proj.weight", 0.2),
        ("model.layers.2.input_layernorm.weight", 0.4),
        ("model.layers.3.input_layernorm.weight", 0.5),
        ("model.layers.4.input_layernorm.weight", 0.65),
        ("model.layers.5.input_layernorm.weight", 0.8),
        ("model.layers.5.mlp.up_proj.weight", 0.9),
        ("model.norm.weight", 0.5),
        ("lm_head.weight", 0.5),
    ],
)
def test_slices_restart_the_gradient_and_rule_the_ends(tensor: str, t: float) -> None:
    """Embeddings read the first slice, norm and head the last, all at its first anchor."""
    where = layout()
    values = settings_of(load_recipe(SLICED), where)[0]["t"]
    assert values[where.names.index(tensor)] == pytest.approx(t)


@pytest.mark.parametrize(
    ("tensor", "weights"),
    [
        ("model.embed_tokens.weight", [0.25, 0.25, 0.5]),
        ("lm_head.weight", [0.5, 0.5, 1.0]),
        ("model.layers.5.mlp.up_proj.weight", [3 / 5.5, 0.5 / 5.5, 2 / 5.5]),
        ("model.layers.0.self_attn.q_proj.weight", [0.25, 0.25, 0.5]),
        ("model.layers.5.self_attn.q_proj.weight", [0.5 / 3, 0.5 / 3, 2 / 3]),
    ],
)
def test_linear_weights_fall_back_to_the_stages_own(tensor: str, weights: list[float]) -> None:
    where = layout()
    found = solved(load_recipe(LINEAR), where, vectors(3, len(where.names)))[-1]
    assert found.weights[where.names.index(tensor)] == pytest.approx(weights)
    assert found.cosine is None


def test_weight_of_a_model_comes_before_its_slices_and_the_stages() -> None:
    text = """\
merge_method: linear
slices:
  - sources:
      - {model: A, layer_range: [0, 6], parameters: {weight: [{filter: mlp, value: 1}]}}
      - {model: B, layer_range: [0, 6]}
    parameters: {weight: [{filter: mlp, value: 2}, {filter: attn, value: 3}]}
parameters: {weight: 4}
"""
    where = layout()
    values = settings_of(load_recipe(text), where)[0]["weight"]
    at = where.names.index
    assert values[at("model.layers.3.mlp.up_proj.weight")].tolist() == [1, 2]
    assert values[at("model.layers.3.self_attn.q_proj.weight")].tolist() == [3, 3]
    assert values[at("model.norm.weight")].tolist() == [4, 4]


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_single_layer_model_reads_the_last_anchor(t: float) -> None:
    where = layout(layers=1)
    recipe = load_recipe(HOUSE.replace("[0.25, 0.3, 0.5]", f"[0.7, {t}]"))
    values = settings_of(recipe, where)[0]["t"]
    assert values[where.layers == 0] == pytest.approx(t)
    assert values[where.layers < 0] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            HOUSE.replace("[0.25, 0.3, 0.5]", "[{filter: layers, value: 1}]"),
            "stage one: no rule of t matches model.embed_tokens.weight and 2 more tensors",
        ),
        (
            HOUSE.replace("[0.4, 0.3, 0.25]", "[{filter: e, value: 1}, {filter: norm, value: 0}]"),
            None,
        ),
        (
            HOUSE.replace("{t: 0.5}", "{t: [{filter: model, value: 1}]}"),
            "stage Result: no rule of t matches lm_head.weight; add a rule without a filter",
        ),
        (
            LINEAR.replace("parameters: {weight: 0.5, normalize", "parameters: {normalize").replace(
                "{model: B}", "{model: B, parameters: {weight: [{filter: mlp, value: 3}]}}"
            ),
            "stage Result: no rule of weight matches model.embed_tokens.weight",
        ),
        (
            LINEAR.replace(
                "weight: 0.5, normalize: [{filter: head, value: false}, {value: true}]",
                "weight: -2",
            ).replace("[1, 2]", "-1"),
            "stage Result: linear: the weights of the inputs sum to 0",
        ),
        (SLICED.replace("6]", "7]"), "slices end at layer 7, the models have 6"),
        (SLICED.replace("6]", "5]"), "slices end at layer 5, the models have 6"),
    ],
)
def test_tensor_without_a_value_is_named(text: str, match: str | None) -> None:
    recipe = load_recipe(text)
    if match is None:
        assert settings_of(recipe, layout())
        return
    with pytest.raises(StudioError, match=match):
        settings_of(recipe, layout())


@pytest.mark.parametrize(
    "text",
    [
        HOUSE,
        SLICED,
        LINEAR,
        OTHERS.format("karcher", ""),
        OTHERS.format("model_stock", "base_model: A\n"),
        OTHERS.format("task_arithmetic", "base_model: A\nparameters: {weight: [0.7, 0.2]}\n"),
    ],
)
def test_the_weights_of_a_tensor_do_not_depend_on_which_others_are_solved_with_it(
    text: str,
) -> None:
    """To the bit: an interrupted merge solves them in other groups than an undisturbed one."""
    recipe, where = load_recipe(text, "r"), layout()
    x = vectors(len(recipe.sources), len(where.names))
    x[::3, 1:] = x[::3, :1] + 1e-3 * x[::3, 1:]  # nearly parallel
    gram, settings = x @ x.transpose(0, 2, 1), settings_of(recipe, where)
    together = solve(recipe, gram, settings)[-1].weights
    for size in (1, 2, 5, 16):
        for start in range(0, len(gram), size):
            rows = list(range(start, min(start + size, len(gram))))
            own = [{name: values[rows] for name, values in stage.items()} for stage in settings]
            found = solve(recipe, gram[rows], own)[-1].weights
            np.testing.assert_array_equal(found, together[rows])
