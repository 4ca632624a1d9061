"""Gram matrices that last: the numbers that were measured, for any set of the models."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from studio.errors import StudioError
from studio.merge.geometry.grams import Grams, _Pair, _write, jobs_of
from studio.merge.geometry.measure import known_or_measured, measure, measuring
from studio.merge.geometry.preview import preview
from studio.merge.gradient import Floats
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.merge.run import merge
from tests.checkpoints import write_checkpoint
from tests.faults.merging import HOUSE, ROOT, environment, plan_for, write_recipe, write_sources


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return write_sources(tmp_path, layers=3)


def silent(text: str) -> None:
    pytest.fail(f"nothing should be said, but: {text}")


@pytest.fixture
def grams(tmp_path: Path) -> Grams:
    return Grams(tmp_path / "grams", silent)


def plan_of(*models: Path) -> Plan:
    entries = ", ".join(f"{{model: {model}, parameters: {{weight: 1}}}}" for model in models)
    return check(load_recipe(f"merge_method: linear\nmodels: [{entries}]", "r.yaml"), Options())


def nothing_read(*_: object) -> Floats:
    raise AssertionError("the sources are read although everything is known")


def test_what_was_kept_is_what_was_measured(models: list[Path], grams: Grams) -> None:
    plan = plan_of(*models)
    gram = measure(plan)
    assert np.isnan(grams.load(plan)).all()
    grams.store(plan, gram)
    np.testing.assert_allclose(grams.load(plan), gram, rtol=1e-14)


def test_differences_of_close_models_keep_their_digits(tmp_path: Path, grams: Grams) -> None:
    near = [
        write_checkpoint(tmp_path / name, seed=seed, near=(1, 1e-4), dtype="float32", layers=2)
        for seed, name in enumerate("abc", 2)
    ]
    plan = plan_of(*near)
    grams.store(plan, gram := measure(plan))
    recipe = load_recipe(HOUSE.format(near[0], near[1], near[0], t=0.5), "r.yaml")
    sizes = [job.numel for job in jobs_of(plan)]
    fresh = preview(recipe, plan.layout, sizes, gram, str(near[2]))
    kept = preview(recipe, plan.layout, sizes, grams.load(plan), str(near[2]))
    assert np.degrees(np.arccos(fresh.stages[0].cosine)).max() < 0.1
    np.testing.assert_allclose(kept.similarity, fresh.similarity, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(kept.frame.norms, fresh.frame.norms, rtol=1e-5)


def test_any_set_of_known_pairs_is_known_wherever_the_models_lie(
    tmp_path: Path, models: list[Path], grams: Grams
) -> None:
    plan = plan_of(*models)
    grams.store(plan, gram := measure(plan))
    moved = [Path(shutil.copytree(model, tmp_path / "elsewhere" / model.name)) for model in models]
    found = grams.load(plan_of(moved[2], moved[0]))
    np.testing.assert_allclose(found, gram[:, [2, 0]][:, :, [2, 0]], rtol=1e-14)
    assert len(list((tmp_path / "grams").iterdir())) == 3


def test_a_changed_source_makes_only_its_own_pairs_unknown(
    models: list[Path], grams: Grams
) -> None:
    plan = plan_of(*models)
    grams.store(plan, measure(plan))
    data = bytearray((models[1] / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (models[1] / "model.safetensors").write_bytes(data)
    assert np.isnan(grams.load(plan_of(*models))).all()
    assert not np.isnan(grams.load(plan_of(models[0], models[2]))).any()


def test_only_unknown_tensors_are_read(
    models: list[Path], tmp_path: Path, grams: Grams, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(*models)
    gram = known_or_measured(plan, grams)
    file = next((tmp_path / "grams").iterdir())
    with np.load(file) as held:
        reads, squares = held["reads"], held["squares"]
    reads[4, 1] = "of another tokenizer"
    np.savez(file, reads=reads, squares=squares)
    assert np.flatnonzero(np.isnan(grams.load(plan)).any(axis=(1, 2))).tolist() == [4]
    read: list[int] = []
    np.testing.assert_allclose(known_or_measured(plan, grams, read.append), gram, rtol=1e-14)
    assert sum(read) == sum(job.source_bytes for job in jobs_of(plan))
    monkeypatch.setattr("studio.merge.geometry.measure.measure", nothing_read)
    np.testing.assert_allclose(known_or_measured(plan, grams), gram, rtol=1e-14)


def test_a_merge_keeps_what_it_measured(
    tmp_path: Path, models: list[Path], grams: Grams, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(write_recipe(tmp_path / "recipe.yaml", models), shard_bytes=20_000)
    merge(plan, tmp_path / "out", lambda progress: None, grams)
    monkeypatch.setattr("studio.merge.geometry.measure.measure", nothing_read)
    found = known_or_measured(check(measuring(plan.recipe, None), Options()), grams)
    monkeypatch.undo()
    np.testing.assert_allclose(found, measure(plan), rtol=1e-14)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    at = len(data) // 3
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda data: b"", lambda data: b"x" * 99])
def test_a_damaged_file_is_told_and_made_anew(
    models: list[Path], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    said: list[str] = []
    grams = Grams(tmp_path / "grams", said.append)
    plan = plan_of(*models)
    gram = known_or_measured(plan, grams)
    file = next((tmp_path / "grams").iterdir())
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_allclose(known_or_measured(plan, grams), gram, rtol=1e-14)
    assert len(said) == 1 and file.name in said[0] and "measured again" in said[0]
    np.testing.assert_allclose(grams.load(plan), gram, rtol=1e-14)
    assert len(said) == 1


@pytest.mark.parametrize(
    "arrays",
    [
        {"reads": np.array([["a", "b", "c"]])},
        {"reads": np.zeros((2, 3)), "squares": np.zeros((2, 3))},
        {"reads": np.array([["a", "b", "c"]]), "squares": np.zeros((2, 3))},
        {"reads": np.empty((0, 3), "<U4"), "squares": np.zeros((0, 3))},
    ],
)
def test_a_file_of_another_kind_is_told(
    models: list[Path], tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    said: list[str] = []
    grams = Grams(tmp_path / "grams", said.append)
    plan = plan_of(*models)
    grams.store(plan, measure(plan))
    for file in (tmp_path / "grams").iterdir():
        np.savez(file, **arrays)
    assert np.isnan(grams.load(plan)).all()
    assert len(said) == 3


def test_a_folder_that_cannot_be_written_is_told_and_the_merge_goes_on(
    tmp_path: Path, models: list[Path]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    said: list[str] = []
    plan = plan_for(write_recipe(tmp_path / "recipe.yaml", models))
    merge(plan, tmp_path / "out", lambda progress: None, Grams(tmp_path / "file", said.append))
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert said and all("file" in text for text in said)


def test_many_writers_and_readers_never_see_half_a_file(models: list[Path], grams: Grams) -> None:
    plan = plan_of(*models)
    gram = measure(plan)
    grams.store(plan, gram)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(15):
            grams.store(plan, gram)
            if not np.allclose(grams.load(plan), gram, rtol=1e-14):
                wrong.append("another")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_process_killed_while_writing_leaves_the_old_file(
    tmp_path: Path, models: list[Path], grams: Grams
) -> None:
    plan = plan_of(*models)
    grams.store(plan, gram := measure(plan))
    code = (
        "import os, sys; from pathlib import Path; import numpy as np\n"
        "from studio import durable\n"
        "from studio.merge.geometry import grams\n"
        "from tests.merge.geometry.test_grams import plan_of\n"
        "durable.os.fsync = lambda file: os._exit(9)\n"
        "plan = plan_of(*map(Path, sys.argv[2:]))\n"
        "held = grams.Grams(Path(sys.argv[1]), print)\n"
        "held.store(plan, 2 * held.load(plan))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "grams"), *map(str, models)]
    assert subprocess.run(command, env=environment(), cwd=ROOT).returncode == 9
    np.testing.assert_allclose(grams.load(plan), gram, rtol=1e-14)


def test_a_single_source_and_equal_sources_are_kept_too(
    tmp_path: Path, models: list[Path], grams: Grams
) -> None:
    copy = Path(shutil.copytree(models[0], tmp_path / "copy"))
    for plan in (plan_of(models[0]), plan_of(models[0], copy)):
        grams.store(plan, gram := measure(plan))
        np.testing.assert_allclose(grams.load(plan), gram, rtol=1e-14)


def test_nothing_is_kept_of_a_damaged_source(tmp_path: Path, grams: Grams) -> None:
    folder = write_checkpoint(tmp_path / "a", layers=2)
    other = write_checkpoint(tmp_path / "b", seed=2, layers=2)
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-2:] = b"\x80\x7f"  # bfloat16 infinity
    (other / "model.safetensors").write_bytes(data)
    with pytest.raises(StudioError, match="NaN, Inf"):
        known_or_measured(plan_of(folder, other), grams)
    assert not (tmp_path / "grams").exists()


def test_a_70b_set_takes_a_few_hundred_kilobytes(tmp_path: Path) -> None:
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(723)]
    rng = np.random.default_rng(1)
    reads = np.array([[name, f"{name} [8192, 28672]", f"{name} [8192, 28672]"] for name in names])
    _write(tmp_path / "pair.npz", _Pair(reads, rng.random((723, 3))))
    assert os.path.getsize(tmp_path / "pair.npz") * 6 < 400_000
