import copy
import json
from pathlib import Path
from typing import Any

import pytest

import studio.ui
from studio.errors import StudioError
from studio.merge.methods import METHODS
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.ui.merge.presets import presets, refuse_strange_models
from studio.ui.merge.recipe_json import recipe_from_json, recipe_to_json
from studio.ui.merge.tab import describe_methods

WEB = Path(studio.ui.__file__).parent / "web"
DEMO = presets()["demo"].recipe
RICH = """
merge_method: slerp
base_model: a
chat_template: chatml
tokenizer_source: union
out_dtype: float32
slices:
  - sources:
      - {model: a, layer_range: [0, 2]}
      - {model: b, layer_range: [0, 2]}
    parameters: {t: 0.1}
  - sources:
      - {model: a, layer_range: [2, 4]}
      - {model: b, layer_range: [2, 4]}
parameters:
  t:
    - {filter: self_attn, value: [0, 1]}
    - {filter: lm_head, value: 0.7}
    - {value: 0.5}
"""
LINEAR = """
merge_method: linear
models:
  - {model: a, parameters: {weight: [0.5, 1]}}
  - {model: "null", parameters: {weight: 2}}
parameters: {normalize: false}
"""
OTHERS = """
merge_method: karcher
name: mean
models: [{model: b}, {model: c}]
parameters: {max_iter: 5}
---
merge_method: task_arithmetic
name: task
base_model: a
models: [{model: mean, parameters: {weight: [0.5, 1]}}]
parameters: {lambda: 0.9, normalize: true}
---
merge_method: model_stock
base_model: a
models: [{model: task}, {model: c}]
"""


@pytest.mark.parametrize("text", [dump_recipe(DEMO), RICH, LINEAR, OTHERS])
def test_recipe_survives_the_way_to_the_page_and_back(text: str) -> None:
    recipe = load_recipe(text)
    data = json.loads(json.dumps(recipe_to_json(recipe)))
    assert recipe_from_json(data) == recipe


def test_page_knows_what_each_method_takes() -> None:
    told = describe_methods()
    assert told.keys() == METHODS.keys()
    slerp, karcher = told["slerp"], told["karcher"]
    assert (slerp["inputs"], slerp["needs_base"]) == (2, True)
    assert slerp["settings"]["t"]["default"] is None
    assert karcher["settings"]["max_iter"]["fixed"] and karcher["inputs"] is None
    assert told["linear"]["settings"]["normalize"]["switch"]
    assert told["task_arithmetic"]["settings"]["weight"]["skips_base"]


def test_only_anchors_differ_from_a_recipe_read_before() -> None:
    data = recipe_to_json(DEMO)
    assert recipe_from_json(data) == DEMO
    shuffled = {"stages": [data["stages"][k] for k in (1, 0, 2)]}
    for value in (0.125, -3.5, 1e6):
        data["stages"][1]["settings"]["t"][0]["anchors"] = [value, 0.3, 0.25]
        data["stages"][2]["settings"]["t"][0]["anchors"] = [1 - value]
        recipe = recipe_from_json(data)
        assert recipe == load_recipe(dump_recipe(recipe))
        assert recipe.stages[1].settings["t"][0].anchors == (value, 0.3, 0.25)
        assert recipe.stages[2].settings["t"][0].anchors == (1 - value,)
        swapped = recipe_from_json(shuffled)
        by_name = {stage.name: stage for stage in swapped.stages}
        assert by_name == {stage.name: stage for stage in recipe.stages}


def changed(*path: object, to: object) -> dict[str, Any]:
    data = copy.deepcopy(recipe_to_json(DEMO))
    at: Any = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return data


T = ("stages", 0, "settings", "t")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "sent no recipe"),
        ("text", "sent no recipe"),
        ({}, "at least one entry"),
        ({"stages": []}, "at least one entry"),
        ({"stages": [1]}, "sent no recipe"),
        (changed(*T, 0, "anchors", to=[]), "at least one entry"),
        (changed(*T, 0, "anchors", to=[True]), "not a number"),
        (changed(*T, 0, "anchors", to=["0.3"]), "not a number"),
        (changed(*T, 0, "anchors", to=[float("nan")]), "not a number"),
        (changed(*T, 0, "anchors", to=[float("inf")]), "not a number"),
        (changed(*T, 0, "anchors", to=[1e9]), "not a number"),
        (changed(*T, 0, "anchors", to=[0.5] * 201), "too long"),
        (changed(*T, 0, "filter", to=7), "expected text"),
        (changed("stages", 0, "method", to="ties"), "not supported"),
        (changed("stages", 0, "settings", to={"tea": [{"anchors": [1]}]}), "unknown parameter"),
        (changed("stages", 0, "slices", 0, "start", to=-1), "not the number of a layer"),
        (changed("stages", 0, "slices", 0, "end", to="9"), "not the number of a layer"),
        (
            changed("stages", 0, "slices", 0, "inputs", to=[{"model": "a" * 30_000}]),
            "expected text",
        ),
        (changed("stages", 0, "name", to=None), "stages have no name"),
        (changed("stages", 0, "dtype", to="int4"), "not supported"),
        (changed("stages", 0, "name", to="\ud800"), "no text should hold"),
        (changed("stages", 0, "name", to="a\0b"), "no text should hold"),
        (changed("stages", 0, "settings", to={"weight": [{"anchors": [1]}]}), "slerp takes t"),
        ({"stages": recipe_to_json(DEMO)["stages"] * 80}, "240 entries is too long"),
        (changed(*T, to=[{"anchors": [1], "filter": "x"}] * 199), "201 values is too long"),
    ],
)
def test_recipe_from_the_page_is_refused(data: object, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        recipe_from_json(data)


def test_text_cannot_break_out_of_its_place() -> None:
    data = changed("stages", 0, "slices", 0, "inputs", 1, "model", to="x\n---\nname: y")
    assert "x\n---\nname: y" in recipe_from_json(data).sources


def test_visitors_may_use_shipped_models_only() -> None:
    refuse_strange_models(DEMO, presets())
    for strange in ("/etc", "demo/models/../models/story", "gpt2"):
        data = changed("stages", 1, "slices", 0, "inputs", 1, "model", to=strange)
        with pytest.raises(StudioError, match="visitors can tune the shipped recipes only"):
            refuse_strange_models(recipe_from_json(data), presets())


def test_every_shipped_recipe_loads_with_the_demo_first() -> None:
    assert next(iter(presets())) == "demo"
    assert all(len(preset.recipe.stages) == 3 for preset in presets().values())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_wrong_is_told_of_its_stage(number: int) -> None:
    data = recipe_to_json(DEMO)
    data["stages"][number]["method"], data["stages"][number]["settings"] = "model_stock", {}
    with pytest.raises(StudioError) as told:
        recipe_from_json(data)
    title = DEMO.stages[number].title
    assert str(told.value).startswith(f"stage {title}: models: model_stock takes at least 3 models")
