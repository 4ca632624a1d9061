"""The exact preview: the Gram matrices of every tensor, and nothing written."""

from pathlib import Path

import numpy as np
import pytest
import torch

from studio.errors import StudioError
from studio.merge.geometry.grams import jobs_of
from studio.merge.geometry.measure import measure
from studio.merge.geometry.preview import preview
from tests.faults.merging import plan_for, write_recipe, write_sources


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", write_sources(tmp_path, layers=3))


def test_similarities_and_norms_are_those_of_the_tensors(recipe: Path) -> None:
    plan = plan_for(recipe)
    sizes = [job.numel for job in jobs_of(plan)]
    found = preview(plan.recipe, plan.layout, sizes, measure(plan))
    weights = found.stages[-1].weights
    for row, name in enumerate(plan.layout.names):
        x = torch.stack([s.load(name).double().flatten() for s in plan.sources]).numpy()
        merged = weights[row] @ x
        norms, norm = np.linalg.norm(x, axis=1), np.linalg.norm(merged)
        np.testing.assert_allclose(found.similarity[row], x @ merged / norms / norm, rtol=1e-6)
        np.testing.assert_allclose(found.norm_ratio[row], norm / norms.mean(), rtol=1e-6)
        np.testing.assert_allclose(found.shares[row], weights[row] / weights[row].sum())
        assert found.sizes[row] == x.shape[1]


def test_every_byte_is_counted_once_and_nothing_is_written(tmp_path: Path, recipe: Path) -> None:
    plan = plan_for(recipe)
    before = sorted(tmp_path.rglob("*"))
    read: list[int] = []
    measure(plan, read.append)
    assert sum(read) == plan.bytes_read and len(read) == len(plan.layout.names)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_order_in_which_tensors_are_read_changes_nothing(recipe: Path) -> None:
    one = measure(plan_for(recipe))
    other = measure(plan_for(recipe, shard_bytes=10_000))
    assert one.shape == (30, 3, 3)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_names_file_tensor_and_model(tmp_path: Path, value: float) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    bad = {name: torch.ones(64, 32, dtype=torch.bfloat16)}
    bad[name][7, 3] = value
    models = write_sources(tmp_path, layers=3)
    write_sources(tmp_path / "bad", layers=3, extra=bad)
    models[1] = tmp_path / "bad" / "b"
    with pytest.raises(StudioError) as caught:
        measure(plan_for(write_recipe(tmp_path / "recipe.yaml", models)))
    for part in (str(models[1] / "model.safetensors"), name, f"of {models[1]} holds NaN"):
        assert part in str(caught.value)
