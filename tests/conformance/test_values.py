"""mergekit reads the same numbers for every tensor out of recipes drawn at random."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from studio.errors import StudioError
from studio.merge.coefficients import settings_of
from studio.merge.layout import Layout
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.checkpoints import Toy, write_checkpoint
from tests.conformance.conftest import run_mergekit

LAYERS, COUNT = 12, 400
DEAD = {"int8_mask", "rescale", "density"}  # of task_arithmetic: for its kin that drop elements
FILTERS = ["self_attn", "mlp", "layers.1", "layers.1.", "q_proj", "norm", "lm_head", "embed", "*"]


def number(rng: random.Random) -> float | int | str:
    return rng.choice([0, 1, 0.5, "1e-1", round(rng.uniform(-0.5, 1.5), 3)])


def anchors(rng: random.Random) -> Any:
    if rng.random() < 0.4:
        return number(rng)
    return [number(rng) for _ in range(rng.randint(1, 6))]


def value(rng: random.Random) -> Any:
    """A number, a gradient, a rule or rules, the last of which may leave tensors without one."""
    if rng.random() < 0.4:
        return anchors(rng)
    rules = [
        {"filter": rng.choice(FILTERS), "value": anchors(rng)} for _ in range(rng.randint(1, 4))
    ]
    if rng.random() < 0.8:
        rules.append({"value": anchors(rng)})
    return rules[0] if len(rules) == 1 else rules


def recipe(rng: random.Random, models: list[str]) -> dict[str, Any]:
    """One merge with settings wherever they may stand."""
    method = rng.choice(["slerp", "linear", "task_arithmetic"])
    chosen = models[:2] if method == "slerp" else models
    key = "t" if method == "slerp" else "weight"

    def maybe(likely: float) -> dict[str, Any]:
        return {"parameters": {key: value(rng)}} if rng.random() < likely else {}

    def entries(more: dict[str, Any]) -> list[dict[str, Any]]:
        own = 0.0 if method == "slerp" else 0.5
        return [{"model": model} | more | maybe(own) for model in chosen]

    made: dict[str, Any] = {"merge_method": method} | maybe(0.9)
    if method != "linear":
        made["base_model"] = chosen[0]
    if method == "task_arithmetic" and rng.random() < 0.5:
        made.setdefault("parameters", {})["lambda"] = value(rng)
    if method != "slerp" and rng.random() < 0.5:
        switch = rng.choice(
            [True, False, 1.0, 0, [{"filter": "mlp", "value": False}, {"value": True}]]
        )
        made.setdefault("parameters", {})["normalize"] = switch
    body = models_or_slices(rng, entries, maybe)
    if rng.random() < 0.3:
        return made | {"modules": {"default": body | maybe(0.5)}}
    return made | body


def models_or_slices(
    rng: random.Random,
    entries: Callable[[dict[str, Any]], list[dict[str, Any]]],
    maybe: Callable[[float], dict[str, Any]],
) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"models": entries({})}
    cuts = sorted(rng.sample(range(1, LAYERS), rng.randint(0, 3)))
    ranges = zip([0, *cuts], [*cuts, LAYERS], strict=True)
    parts = [{"sources": entries({"layer_range": list(r)})} | maybe(0.5) for r in ranges]
    return {"slices": parts}


def our_values(text: str, layout: Layout) -> dict[str, dict[str, Any]] | None:
    """As mergekit's, or None where a value is missing."""
    try:
        (found,) = settings_of(load_recipe(text), layout)
    except StudioError as error:
        if "no rule of" in str(error) or "is missing" in str(error):
            return None
        if "sum to 0" in str(error):
            return {}
        raise
    return {
        name: {key: column[row].tolist() for key, column in found.items()}
        for row, name in enumerate(layout.names)
    }


@pytest.mark.timeout(400)
def test_random_recipes_give_mergekits_values_at_every_tensor(tmp_path: Path) -> None:
    rng = random.Random(20261123)
    models = [
        str(write_checkpoint(tmp_path / name, layers=LAYERS, hidden_size=8)) for name in "ABC"
    ]
    texts = [yaml.safe_dump(recipe(rng, models)) for _ in range(COUNT)]
    (tmp_path / "recipes.json").write_text(json.dumps(texts))
    theirs = json.loads(run_mergekit("mergekit_values.py", tmp_path / "recipes.json"))
    layout = Layout.of(list(Toy(layers=LAYERS).tensors()), LAYERS)
    compared = missing = 0
    for text, expected in zip(texts, theirs, strict=True):
        found = our_values(text, layout)
        if found == {}:
            continue
        if expected is None or found is None:
            assert found is expected, text
            missing += 1
            continue
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert values.keys() == expected[name].keys() - DEAD, text
            for key, got in values.items():
                wanted = np.nan_to_num(np.array(expected[name][key], dtype=float))  # the base's
                assert np.allclose(got, wanted, rtol=0, atol=1e-12), (text, name, key)
        compared += 1
    assert compared > COUNT / 3
    assert missing > COUNT / 20
