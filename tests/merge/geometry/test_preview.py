"""The preview tells, from Gram matrices alone, what the merged vectors would show."""

import numpy as np
import pytest

from studio.merge.geometry.preview import Preview, preview
from studio.merge.layout import Layout
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.checkpoints import Toy
from tests.merge.test_coefficients import HOUSE, vectors

TENSORS = Toy(layers=3).tensors()
LAYOUT = Layout.of(list(TENSORS), 3)
SIZES = [TENSORS[name].numel() for name in LAYOUT.names]


def shown(x: np.ndarray) -> Preview:
    return preview(load_recipe(HOUSE), LAYOUT, SIZES, x @ x.transpose(0, 2, 1))


def merged(found: Preview, x: np.ndarray) -> np.ndarray:
    return np.einsum("tn,tnd->td", found.stages[-1].weights, x)


def test_similarity_and_norm_are_those_of_the_merged_vectors() -> None:
    x = vectors(3, len(SIZES))
    found = shown(x)
    y = merged(found, x)
    norms = np.linalg.norm(x, axis=2)
    cosines = np.einsum("td,tnd->tn", y, x) / norms / np.linalg.norm(y, axis=1)[:, None]
    assert found.similarity == pytest.approx(cosines)
    assert found.norm_ratio == pytest.approx(np.linalg.norm(y, axis=1) / norms.mean(axis=1))


def test_shares_sum_to_one() -> None:
    found = shown(vectors(3, len(SIZES)))
    assert found.shares.sum(axis=1) == pytest.approx(1)
    weights = found.stages[-1].weights
    assert found.shares * weights.sum(axis=1, keepdims=True) == pytest.approx(weights)


def test_without_gram_matrices_the_shares_are_those_of_straight_lines() -> None:
    found = preview(load_recipe(HOUSE), LAYOUT, SIZES)
    t1, t2 = (np.array(stage.values["t"]) for stage in found.stages[:2])
    expected = np.stack([0.5 * (1 - t1), 0.5 * t1 + 0.5 * (1 - t2), 0.5 * t2], axis=1)
    assert found.shares == pytest.approx(expected)
    assert found.similarity == pytest.approx(1)


def test_close_sources_are_near_the_guess_without_gram_matrices() -> None:
    x = vectors(1, len(SIZES)) + 0.001 * vectors(3, len(SIZES), seed=8)
    guess = preview(load_recipe(HOUSE), LAYOUT, SIZES)
    assert shown(x).shares == pytest.approx(guess.shares, abs=1e-6)


def test_zero_tensors_give_zeros_and_no_warning() -> None:
    x = vectors(3, len(SIZES))
    x[0] = 0
    x[1, 2] = 0
    found = shown(x)
    assert found.norm_ratio[0] == 0
    assert found.similarity[0].tolist() == [0, 0, 0]
    assert found.similarity[1, 2] == 0
    assert np.isfinite(found.shares).all()


def test_rows_are_means_weighted_by_size() -> None:
    found = shown(vectors(3, len(SIZES)))
    names, values = found.by_row(found.norm_ratio)
    assert names == ["embeddings", "layer 0", "layer 1", "layer 2", "norm", "head"]
    own = [i for i, layer in enumerate(LAYOUT.layers) if layer == 1]
    expected = np.average(found.norm_ratio[own], weights=np.array(SIZES)[own])
    assert values[2] == pytest.approx(expected)
    assert values[5] == pytest.approx(found.norm_ratio[LAYOUT.names.index("lm_head.weight")])
    _, shares = found.by_row(found.shares)
    assert shares.shape == (6, 3)
    assert shares.sum(axis=1) == pytest.approx(1)
