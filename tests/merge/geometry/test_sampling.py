"""Estimates from blocks: close, honest about how close, and with only those blocks read."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from studio.errors import StudioError
from studio.merge.geometry.grams import jobs_of
from studio.merge.geometry.measure import measure, measuring
from studio.merge.geometry.preview import preview
from studio.merge.geometry.sampling import Estimate, estimates
from studio.merge.geometry.uncertainty import errors
from studio.merge.gradient import Floats
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.checkpoints import Toy
from tests.faults.merging import HOUSE

ROOT = Path(__file__).parents[3]
ROW = 128  # elements: the width of the toys below
SIZES = {"hidden_size": ROW, "intermediate_size": 384, "vocab_size": 512}
SEEDS = 8
STATED = 0.95
Change = Callable[[str, torch.Tensor, np.random.Generator, int], torch.Tensor]


def unchanged(name: str, x: torch.Tensor, rng: np.random.Generator, source: int) -> torch.Tensor:
    return x


def outlier_rows(name: str, x: torch.Tensor, rng: np.random.Generator, source: int) -> torch.Tensor:
    """One row in a hundred is eight times as large, in all sources."""
    rows = rng.choice(len(x), max(1, len(x) // 100), replace=False)
    x[rows] *= 8
    return x


def changed_rows(name: str, x: torch.Tensor, rng: np.random.Generator, source: int) -> torch.Tensor:
    """One row in thirty is far from what it was in the others, in one source."""
    rows = rng.choice(len(x), max(1, len(x) // 30), replace=False)
    noise = torch.from_numpy(rng.normal(size=(len(rows), *x.shape[1:]))).to(x.dtype)
    if source == 1:
        x[rows] += 0.3 * noise
    return x


def outlier_columns(
    name: str, x: torch.Tensor, rng: np.random.Generator, source: int
) -> torch.Tensor:
    """Three columns are ten times as large."""
    if x.dim() == 2:
        x[:, rng.choice(x.shape[1], 3, replace=False)] *= 10
    return x


def sources(folder: Path, change: Change) -> tuple[Recipe, Plan]:
    """Three fine-tunes with 12 layers, whose tensors `change` has changed."""
    models = []
    for number, near in enumerate((None, (1, 0.3), (1, 0.5))):
        toy = Toy(seed=number + 1, near=near, layers=12, config=SIZES)
        path = toy.write(folder / f"m{number}")
        tensors = {
            name: change(name, tensor, np.random.default_rng(sum(name.encode())), number)
            for name, tensor in toy.tensors().items()
        }
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        models.append(path)
    recipe = load_recipe(HOUSE.format(*models, t=0.5), "recipe.yaml")
    return recipe, check(measuring(recipe, None), Options())


def last(plan: Plan, rounds: int = 3, seed: int = 0, block: int = ROW) -> Estimate:
    *_, found = estimates(plan, rounds, block, seed)
    return found


def rows_of(recipe: Recipe, plan: Plan, gram: Floats) -> Floats:
    """Shares and the stages' angles over the rows of the charts, (R, k)."""
    sizes = [job.numel for job in jobs_of(plan)]
    found = preview(recipe, plan.layout, sizes, gram)
    angles = [np.degrees(np.arccos(c))[:, None] for c in found.stage_cosines if c is not None]
    return found.by_row(np.concatenate([found.shares, *angles], axis=1))[1]


def half_widths(recipe: Recipe, plan: Plan, estimate: Estimate) -> Floats:
    sizes = [job.numel for job in jobs_of(plan)]
    off = errors(preview(recipe, plan.layout, sizes, estimate.gram), estimate.deviations)
    return np.concatenate([off.shares, *(d[:, None] for d in off.degrees if d is not None)], axis=1)


@pytest.mark.parametrize("change", [unchanged, outlier_rows, changed_rows, outlier_columns])
def test_the_error_bar_covers_as_often_as_it_says(tmp_path: Path, change: Change) -> None:
    recipe, plan = sources(tmp_path, change)
    exact = rows_of(recipe, plan, measure(plan))
    covered, widths = [], []
    for seed in range(SEEDS):
        estimate = last(plan, seed=seed)
        width = half_widths(recipe, plan, estimate)
        off = np.abs(rows_of(recipe, plan, estimate.gram) - exact)
        covered.append(off <= width + 1e-9)
        widths.append(width)
    assert 0.1 < estimate.part < 0.5
    assert np.mean(covered) >= STATED
    shares, angles = np.mean(widths, axis=(0, 1))[:3], np.mean(widths, axis=(0, 1))[3:]
    assert (shares < 0.01).all() and (angles < 8).all()  # not by being wide


def test_the_demo_models_are_near_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = load_recipe((ROOT / "recipes/demo.yaml").read_text(), "demo.yaml")
    plan = check(measuring(recipe, None), Options())
    exact = rows_of(recipe, plan, measure(plan))
    estimate = last(plan, rounds=2, block=192)
    off = np.abs(rows_of(recipe, plan, estimate.gram) - exact)
    assert 0.1 < estimate.part < 0.5
    assert off[:, :3].max() < 0.01 and off[:, 3:].max() < 2
    width = half_widths(recipe, plan, estimate)
    assert np.mean(off <= width + 1e-9) >= STATED


def test_every_round_reads_more_and_knows_more(tmp_path: Path) -> None:
    recipe, plan = sources(tmp_path, unchanged)
    found = list(estimates(plan, 3, ROW))
    parts = [estimate.part for estimate in found]
    widths = [half_widths(recipe, plan, estimate).mean() for estimate in found]
    assert parts == sorted(parts) and parts[2] > 2 * parts[0]
    assert widths[2] < widths[1] < widths[0]


def bytes_read() -> int:
    """By this process so far, from files in the page cache too."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts the bytes")
def test_only_the_blocks_are_read(tmp_path: Path) -> None:
    _, plan = sources(tmp_path, unchanged)
    last(plan)  # what else is read, is read now
    before = bytes_read()
    estimate = last(plan)
    read = bytes_read() - before
    assert estimate.part < 0.5 and read > 100_000
    assert read == pytest.approx(estimate.part * plan.bytes_read, abs=1000)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_small_tensors_are_read_whole_and_exact(tmp_path: Path, dtype: str, format: str) -> None:
    models = [
        Toy(seed=seed, near=(1, 0.2), dtype=dtype, format=format).write(tmp_path / str(seed))
        for seed in (2, 3, 4)
    ]
    recipe = load_recipe(HOUSE.format(*models, t=0.5), "recipe.yaml")
    plan = check(measuring(recipe, None), Options())
    (found,) = estimates(plan, 1)
    assert found.part == 1 and (found.deviations == 0).all()
    np.testing.assert_allclose(found.gram, measure(plan), rtol=1e-6)


def test_same_seed_gives_the_same_blocks_and_another_gives_others(tmp_path: Path) -> None:
    _, plan = sources(tmp_path, unchanged)
    first, again, other = (last(plan, seed=seed).gram for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_nan_and_missing_bytes_are_named(tmp_path: Path) -> None:
    toys = [Toy(seed=seed).write(tmp_path / str(seed)) for seed in (1, 2, 3)]
    recipe = load_recipe(HOUSE.format(*toys, t=0.5), "recipe.yaml")
    plan = check(measuring(recipe, None), Options())
    file = toys[1] / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2:] = b"\x80\x7f"  # bfloat16 infinity
    file.write_bytes(data)
    with pytest.raises(StudioError, match=r"2/model.safetensors: tensor .* holds NaN, infinity"):
        last(plan)
    os.truncate(file, len(data) // 2)
    with pytest.raises(StudioError, match="has changed since it was opened"):
        last(plan)
