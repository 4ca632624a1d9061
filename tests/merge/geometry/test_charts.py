"""The lists that charts are drawn from, against the vectors themselves."""

import json

import numpy as np
import pytest

from studio.merge.geometry.charts import charts, tensor_table
from studio.merge.geometry.preview import Preview, preview
from studio.merge.layout import Layout
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.checkpoints import Toy
from tests.merge.test_coefficients import HOUSE, LINEAR, vectors

TENSORS = Toy(layers=3).tensors()
LAYOUT = Layout.of(list(TENSORS), 3)
SIZES = [TENSORS[name].numel() for name in LAYOUT.names]
FILTERED = """
merge_method: slerp
base_model: A
models: [{model: A}, {model: B}]
parameters: {t: [{filter: self_attn, value: [0, 1]}, {filter: mlp, value: 0.3}, {value: 0.5}]}
"""


def near(scale: float, seed: int = 3, count: int = 3) -> np.ndarray:
    """(T, count + 1, 50): fine-tunes of one base, and behind them the base."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(len(SIZES), 1, 50))
    return np.concatenate([base + scale * vectors(count, len(SIZES), seed), base], axis=1)


def shown(x: np.ndarray, base: str | None = None, text: str = HOUSE) -> Preview:
    return preview(load_recipe(text), LAYOUT, SIZES, x @ x.transpose(0, 2, 1), base)


def merged(found: Preview, x: np.ndarray) -> np.ndarray:
    return np.einsum("tn,tnd->td", found.weights, x[:, : found.weights.shape[1]])


def norm(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=-1)


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In degrees, without cancellation for small ones."""
    a, b = a / norm(a)[..., None], b / norm(b)[..., None]
    return np.degrees(2 * np.arctan2(norm(a - b), norm(a + b)))


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4])
def test_task_vectors_are_those_of_the_vectors(scale: float) -> None:
    x = near(scale)
    found = shown(x, "Base")
    deltas, delta = x[:, :3] - x[:, 3:], merged(found, x) - x[:, 3]
    lengths = norm(deltas)
    inner = np.einsum("td,tnd->tn", delta, deltas)
    tight = {"rel": 1e-5, "abs": 1e-6}
    assert found.similarity == pytest.approx(inner / lengths / norm(delta)[:, None], **tight)
    assert found.survives == pytest.approx(inner / lengths**2, **tight)
    assert found.norm_ratio == pytest.approx(norm(delta) / lengths.mean(axis=1), **tight)
    parts = found.weights * lengths
    assert found.shares == pytest.approx(parts / parts.sum(axis=1, keepdims=True), **tight)
    assert found.distance == pytest.approx(
        norm(merged(found, x)[:, None] - x[:, :3]) / lengths, **tight
    )
    expected = angle(deltas[:, 0], deltas[:, 1])
    assert np.degrees(np.arccos(found.frame.source_cosines[:, 0, 1])) == pytest.approx(
        expected, rel=1e-4
    )
    assert found.stage_cosines[0] == pytest.approx(np.cos(np.radians(expected)), rel=1e-4)


def test_small_angles_and_distances_between_weights_keep_their_digits() -> None:
    x = near(1e-5)
    found = shown(x[:, :3] * 1.0)
    expected = angle(x[:, 0], x[:, 2])
    assert expected.max() < 0.01
    assert np.degrees(np.arccos(found.frame.source_cosines[:, 0, 2])) == pytest.approx(
        expected, rel=1e-4
    )
    distance = norm(merged(found, x)[:, None] - x[:, :3]) / norm(x[:, :3])
    assert found.distance == pytest.approx(distance, rel=1e-4)


def test_the_base_may_be_one_of_the_sources() -> None:
    x = near(0.1, count=2)
    found = shown(x, "C")
    assert (found.shares[:, 2] == 0).all()
    assert found.survives is not None and (found.survives[:, 2] == 0).all()
    drawn = charts(found)
    assert drawn["heatmap"]["angle"]["0,2"][0] == [None] * len(drawn["heatmap"]["modules"])
    assert None not in drawn["heatmap"]["angle"]["0,1"][0]


def test_heatmap_cells_are_means_over_layer_and_module() -> None:
    x = vectors(3, len(SIZES))
    found = shown(x)
    drawn = charts(found)["heatmap"]
    assert drawn["layers"] == [0, 1, 2]
    row = LAYOUT.names.index("model.layers.1.mlp.up_proj.weight")
    at = drawn["modules"].index("mlp.up_proj")
    assert drawn["angle"]["1,2"][1][at] == pytest.approx(angle(x[row, 1], x[row, 2]), abs=1e-5)
    y = merged(found, x)
    expected = norm(y[row] - x[row, 0]) / norm(x[row, 0])
    assert drawn["distance"][0][1][at] == pytest.approx(expected, abs=1e-5)
    assert charts(preview(load_recipe(HOUSE), LAYOUT, SIZES))["heatmap"] is None


def test_effect_is_how_far_a_stage_moves_the_result() -> None:
    x = near(0.01)[:, :3]
    found = shown(x)
    one, two = found.stages[0].weights, found.stages[1].weights
    last = found.stages[2].coefficients
    farthest = max(
        np.sqrt((norm(x[:, i] - x[:, j]) ** 2).sum()) for i in range(3) for j in range(i)
    )

    def moved(weights: np.ndarray) -> float:
        steps = norm(np.einsum("tn,tnd->td", weights, x))
        return float(np.sqrt((steps**2).sum()) / farthest)

    assert found.effects == pytest.approx(
        [
            moved(last[:, :1] * (one - [1, 0, 0])),
            moved(last[:, 1:] * (two - [0, 1, 0])),
            moved(found.weights - one),
        ],
        rel=1e-6,
    )


def test_a_stage_that_does_nothing_is_named() -> None:
    text = HOUSE.replace("[0.4, 0.3, 0.25]", "0.01")
    drawn = charts(shown(near(0.1)[:, :3], text=text))
    assert drawn["stages"][1]["effect"] < 0.02
    said = [text for text in drawn["words"] if "little effect" in text]
    assert len(said) == 1 and said[0].startswith("two has little effect")


def test_stages_that_do_nothing_share_a_sentence() -> None:
    text = HOUSE.replace("[0.4, 0.3, 0.25]", "0.01").replace("[0.25, 0.3, 0.5]", "0.02")
    drawn = charts(shown(near(0.1)[:, :3], text=text))
    most = max(stage["effect"] for stage in drawn["stages"][:2])
    assert drawn["words"][-1] == (
        f"one and two have little effect: each moves the result by at most {100 * most:.0f} % of "
        "the largest distance between two sources."
    )


def test_words_tell_where_slerp_is_linear_and_the_overall_mix() -> None:
    x = vectors(3, len(SIZES))
    near_parallel = [n for n, name in enumerate(LAYOUT.names) if "mlp" in name]
    x[near_parallel] = near(1e-3)[near_parallel, :3]
    drawn = charts(shown(x))
    part = sum(SIZES[n] for n in near_parallel) / sum(SIZES)
    assert [stage["linear_share"] for stage in drawn["stages"]] == pytest.approx(
        [part] * 3, abs=1e-5
    )
    assert drawn["words"][1:] == [
        "SLERP is linear where the weights of its inputs are nearly parallel (cos > 0.9995): "
        f"in {100 * part:.0f} % of the parameters of one, two and Result."
    ]
    best = int(np.argmax(drawn["overall"]))
    assert drawn["words"][0].startswith(
        f"Overall mix, in weights: {100 * drawn['overall'][best]:.0f} % {'ABC'[best]}, "
    )


def test_words_pass_over_the_few_parameters_that_are_always_nearly_parallel() -> None:
    x = vectors(3, len(SIZES))
    norms = [n for n, name in enumerate(LAYOUT.names) if "norm" in name]
    x[norms] = near(1e-3)[norms, :3]
    drawn = charts(shown(x))
    assert all(0 < stage["linear_share"] < 0.05 for stage in drawn["stages"])
    assert len(drawn["words"]) == 1


def test_words_say_in_which_space_the_mix_is() -> None:
    drawn = charts(shown(near(0.1), base="D"))
    assert drawn["space"] == "task vectors"
    assert drawn["words"][0].startswith("Overall mix, in task vectors (what changed from D): ")


def test_groups_are_shown_only_where_filters_make_them_differ() -> None:
    drawn = charts(shown(vectors(2, len(SIZES)), text=FILTERED))
    groups = drawn["stages"][0]["groups"]["t"]
    assert groups["attention"] == [None, 0.0, 0.5, 1.0, None, None]
    assert groups["mlp"] == [None, 0.3, 0.3, 0.3, None, None]
    assert groups["norms"] == [None, 0.5, 0.5, 0.5, None, None]
    assert [stage["groups"] for stage in charts(shown(vectors(3, len(SIZES))))["stages"]] == [
        {}
    ] * 3


def test_table_lists_every_tensor_with_its_exact_settings() -> None:
    found = shown(vectors(3, len(SIZES)), text=LINEAR)
    table = tensor_table(found)
    assert [row[0] for row in table["rows"]] == list(LAYOUT.names)
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    row = dict(
        zip(table["columns"], table["rows"][LAYOUT.names.index("lm_head.weight")], strict=True)
    )
    assert (row["layer"], row["elements"]) == (None, TENSORS["lm_head.weight"].numel())
    assert row["Result: weight of C"] == 1.0 and row["weight of A"] == 0.5


def test_everything_is_json_without_nan() -> None:
    x = vectors(3, len(SIZES))
    x[0] = 0
    x[2, 1] = 0
    json.dumps([charts(shown(x)), tensor_table(shown(x))], allow_nan=False)
    json.dumps(charts(shown(x[:, :2], "B", FILTERED)), allow_nan=False)
