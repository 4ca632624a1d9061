"""Recipes as data: the order of stages, their sources, and the numbers that tuning changes."""

from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.merge.gradient import constant
from studio.merge.recipe import Input, Recipe, Slice, Stage, anchors, ordered, with_anchors
from studio.merge.recipe_files.recipe_dump import fingerprint
from studio.merge.recipe_files.recipe_yaml import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
TUNED = """\
merge_method: linear
name: mean
models:
  - {model: B, parameters: {weight: [{filter: mlp, value: [1, 2]}, {value: 3}]}}
  - {model: C}
parameters: {normalize: false, weight: 4}
---
merge_method: slerp
base_model: A
slices:
  - sources: [{model: A, layer_range: [0, 2]}, {model: mean, layer_range: [0, 2]}]
    parameters: {t: [5, 6]}
  - sources: [{model: A, layer_range: [2, 4]}, {model: mean, layer_range: [2, 4]}]
parameters: {t: 7}
"""
OTHERS = """\
merge_method: karcher
name: mean
models: [{model: B}, {model: C}, {model: D}]
parameters: {max_iter: 7, tol: 1e-4}
---
merge_method: task_arithmetic
name: task
base_model: A
models:
  - {model: mean, parameters: {weight: 1}}
  - {model: B, parameters: {weight: [2, 3]}}
parameters: {lambda: 4, normalize: true}
---
merge_method: model_stock
base_model: A
models: [{model: task}, {model: C}]
"""


def stage(name: str | None, *models: str) -> Stage:
    inputs = tuple(Input(model) for model in models)
    return Stage("slerp", (Slice(inputs),), name, {"t": constant(0.5)})


@pytest.mark.parametrize(
    ("stages", "order"),
    [
        ([stage(None, "A", "B")], [None]),
        ([stage("x", "A", "B"), stage(None, "x", "C")], ["x", None]),
        ([stage(None, "x", "C"), stage("x", "A", "B")], ["x", None]),
        ([stage("z", "x", "y"), stage("y", "x", "B"), stage("x", "A", "B")], ["x", "y", "z"]),
        ([stage("x", "A", "B"), stage("unused", "A", "C"), stage(None, "x", "C")],
         ["x", "unused", None]),
    ],
)  # fmt: skip
def test_ordered_puts_stages_after_what_they_use(
    stages: list[Stage], order: list[str | None]
) -> None:
    assert [s.name for s in ordered(stages)] == order


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ([stage("x", "A", "B"), stage("x", "C", "B"), stage(None, "x", "D")], 'named "x"'),
        ([stage(None, "A", "B"), stage(None, "C", "B")], "2 stages have no name"),
        ([stage("x", "A", "B"), stage("y", "C", "B")], r"2 stages could be the result \(x, y\)"),
        ([stage("x", "y", "B"), stage("y", "x", "B")], "cycle"),
        ([stage("x", "x", "B")], "cycle"),
        ([stage("x", "y", "B"), stage("y", "x", "B"), stage(None, "A", "B")], "x, y use each"),
    ],
)
def test_ordered_refuses_what_has_no_order(stages: list[Stage], match: str) -> None:
    with pytest.raises(StudioError, match=match):
        ordered(stages)


@pytest.mark.parametrize("file", ["creative-70b.yaml", "demo.yaml"])
def test_shipped_recipe_has_the_house_shape(file: str) -> None:
    recipe = load_recipe((RECIPES / file).read_text(), file)
    assert [s.title for s in recipe.stages] == ["component-1", "component-2", "Result"]
    assert anchors(recipe) == (0.25, 0.3, 0.5, 0.4, 0.3, 0.25, 0.5)
    assert len(recipe.sources) == 3
    assert recipe.base == recipe.sources[0] == recipe.stages[0].models[0]
    assert recipe.warnings == ()


def test_base_is_found_down_the_first_inputs() -> None:
    recipe = Recipe((stage("x", "C", "A"), stage("y", "x", "B"), stage(None, "y", "D")))
    assert recipe.base == "C"
    assert recipe.sources == ("C", "A", "B", "D")


def test_sources_begin_with_the_base_though_it_is_used_last() -> None:
    recipe = Recipe((stage("x", "A", "B"), stage(None, "C", "x")))
    assert recipe.sources == ("C", "A", "B")


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [
        ("", None),
        ("dtype: float16", "float16"),
        ("out_dtype: bfloat16", "bfloat16"),
        ("dtype: float32\nout_dtype: bfloat16", "bfloat16"),
    ],
)
def test_dtype_is_that_of_the_written_weights(keys: str, dtype: str | None) -> None:
    assert load_recipe(f"{TUNED}{keys}\n").dtype == dtype


def test_anchors_are_every_number_but_switches() -> None:
    assert anchors(load_recipe(TUNED)) == (1, 2, 3, 4, 5, 6, 7)


def test_anchors_of_every_method_survive_tuning() -> None:
    recipe = load_recipe(OTHERS)
    assert anchors(recipe) == (1, 2, 3, 4)
    renewed = with_anchors(recipe, (10, 20, 30, 40))
    assert renewed == load_recipe(
        OTHERS.replace("weight: 1", "weight: 10").replace("weight: [2, 3]", "weight: [20, 30]")
        .replace("lambda: 4", "lambda: 40")
    )  # fmt: skip
    assert fingerprint(renewed) != fingerprint(recipe)


def test_with_anchors_renews_each_number_in_its_place() -> None:
    recipe = load_recipe(TUNED)
    values = tuple(10.0 * value for value in anchors(recipe))
    renewed = with_anchors(recipe, values)
    assert anchors(renewed) == values
    assert renewed == load_recipe(
        TUNED.replace("[1, 2]", "[10, 20]").replace("value: 3", "value: 30")
        .replace("weight: 4", "weight: 40").replace("[5, 6]", "[50, 60]")
        .replace("t: 7", "t: 70")
    )  # fmt: skip
    assert with_anchors(renewed, anchors(recipe)) == recipe


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("value: 3", "value: 3.0"), True),
        (("weight: 4", "weight: {value: 4}"), True),
        (("{value: 3}", "{filter: '*', value: [3]}"), True),
        (("name: mean\n", "# a comment\nname: 'mean'\n"), True),
        (("weight: 4", "weight: 4.5"), False),
        (("filter: mlp", "filter: attn"), False),
        (("normalize: false", "normalize: true"), False),
        (("{model: C}", "{model: D}"), False),
        (("layer_range: [2, 4]", "layer_range: [2, 5]"), False),
    ],
)
def test_fingerprint_is_of_the_meaning(change: tuple[str, str], same: bool) -> None:
    changed = load_recipe(TUNED.replace(*change))
    assert (fingerprint(changed) == fingerprint(load_recipe(TUNED))) is same
