"""Gradients, filters and levels, by the published example and by hand."""

import numpy as np
import pytest

from studio.merge.gradient import Rule, at, constant, evaluate

NAMES = ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"]
START = np.zeros(len(NAMES))


@pytest.mark.parametrize(
    ("anchors", "values"),
    [
        (
            (0.25, 0.3, 0.5),
            {0: 0.25, 1: 0.25127, 20: 0.27532, 39: 0.29937, 40: 0.30253, 60: 0.40380, 79: 0.5},
        ),
        (
            (0.4, 0.3, 0.25),
            {0: 0.4, 1: 0.39747, 20: 0.34937, 39: 0.30127, 40: 0.29937, 60: 0.27405, 79: 0.25},
        ),
    ],
)
def test_house_gradients_over_80_layers_give_the_known_values(
    anchors: tuple[float, ...], values: dict[int, float]
) -> None:
    layers = np.array(list(values))
    assert at(anchors, layers / 79) == pytest.approx(list(values.values()), abs=5e-6)


@pytest.mark.parametrize(
    ("anchors", "position", "value"),
    [
        ((0.7,), 0.0, 0.7),
        ((0.7,), 1.0, 0.7),
        ((0.2, 0.8), 0.25, 0.35),
        ((0.0, 1.0, 0.0), 0.5, 1.0),
        ((0.0, 1.0, 0.0), 0.75, 0.5),
        ((-1.0, 3.0), 0.5, 1.0),
    ],
)
def test_at_joins_equally_spaced_anchors_by_lines(
    anchors: tuple[float, ...], position: float, value: float
) -> None:
    assert at(anchors, np.array([position])) == pytest.approx([value])


@pytest.mark.parametrize(
    ("filter_", "tensor", "matches"),
    [
        (None, "lm_head.weight", True),
        ("layers.1", "model.layers.1.mlp.up_proj.weight", True),
        ("layers.1", "model.layers.17.mlp.up_proj.weight", True),
        ("layers.1.", "model.layers.17.mlp.up_proj.weight", False),
        ("MLP", "model.layers.1.mlp.up_proj.weight", False),
        ("m.p", "model.layers.1.mlp.up_proj.weight", False),
        ("layers.*", "model.layers.1.mlp.up_proj.weight", False),
    ],
)
def test_filter_is_a_case_sensitive_substring(
    filter_: str | None, tensor: str, matches: bool
) -> None:
    assert Rule((0.5,), filter_).matches(tensor) is matches


def test_first_matching_rule_wins() -> None:
    rules = (Rule((0.1,), "layers"), Rule((0.2,), "mlp"), Rule((0.3,)), Rule((0.4,), "lm_head"))
    assert evaluate([rules], NAMES, START) == pytest.approx([0.3, 0.1, 0.3])


def test_unmatched_tensor_takes_the_next_level() -> None:
    inner, outer = (Rule((0.1,), "mlp"),), (Rule((0.2,), "embed"), Rule((0.3,), "lm_head"))
    assert evaluate([inner, (), outer], NAMES, START) == pytest.approx([0.2, 0.1, 0.3])


def test_tensor_without_any_rule_is_nan() -> None:
    values = evaluate([(Rule((0.1,), "mlp"),)], NAMES, START)
    assert np.isnan(values).tolist() == [True, False, True]


def test_each_rule_reads_its_own_position() -> None:
    positions = np.array([0.0, 0.5, 1.0])
    assert evaluate([(Rule((0.0, 1.0)),)], NAMES, positions) == pytest.approx([0.0, 0.5, 1.0])


def test_constant_is_the_same_everywhere() -> None:
    assert evaluate([constant(0.6)], NAMES, np.array([0.0, 0.3, 1.0])) == pytest.approx([0.6] * 3)
