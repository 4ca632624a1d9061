"""The pass: right values, resumed to the bit, never stale, and a name only for what is complete."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from studio.errors import StudioError
from studio.merge import mixing
from studio.merge import run as run_module
from studio.merge.coefficients import solve
from studio.merge.geometry.measure import measure
from studio.merge.journal import NAME as JOURNAL
from studio.merge.journal import Journal
from studio.merge.output import partial_folder
from studio.merge.plan import Plan
from studio.merge.run import Progress, merge
from tests.checkpoints import write_checkpoint
from tests.faults.merging import contents, finished_shards, plan_for, write_recipe, write_sources

SHARD = 20_000


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return write_sources(tmp_path, layers=3)


@pytest.fixture
def recipe(tmp_path: Path, models: list[Path]) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", models)


@pytest.fixture
def plan(recipe: Path) -> Plan:
    return plan_for(recipe, shard_bytes=SHARD)


@pytest.fixture
def reference(tmp_path: Path, plan: Plan) -> dict[str, str]:
    """What the plan gives when nothing goes wrong."""
    return contents(merge(plan, tmp_path / "reference", ignore))


@pytest.fixture(autouse=True)
def no_thread_and_no_open_file_outlives_its_merge(tmp_path: Path) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    if (descriptors := Path("/proc/self/fd")).exists():
        assert not [link for link in descriptors.iterdir() if tmp_path in link.resolve().parents]


def ignore(progress: Progress) -> None:
    pass


def interrupt_after(shards: int, out: Path) -> Callable[[Progress], None]:
    """A listener that behaves like Ctrl-C once that many shards are finished."""

    def listen(progress: Progress) -> None:
        if finished_shards(out) >= shards:
            raise KeyboardInterrupt

    return listen


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    files = folder.glob("*.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def test_the_result_is_the_mix_of_the_sources(tmp_path: Path, plan: Plan) -> None:
    coefficients = solve(plan.recipe, measure(plan), plan.settings)[-1].weights
    merged = weights_in(merge(plan, tmp_path / "out", ignore))
    assert set(merged) == set(plan.sources[0].tensors)
    for row, name in enumerate(plan.layout.names):
        parts = [source.load(name).double() for source in plan.sources]
        expected = sum(w * part for w, part in zip(coefficients[row], parts, strict=True))
        assert merged[name].dtype == torch.bfloat16
        error = (merged[name].double() - expected).abs() - expected.abs() * 2**-8
        assert error.max() < 1e-9, name  # half a unit in the last place of bfloat16


def test_output_loads_with_the_safetensors_library(tmp_path: Path, recipe: Path) -> None:
    out = merge(plan_for(recipe), tmp_path / "out", ignore)
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert len(list(file.keys())) == 30


@pytest.mark.parametrize("shard_bytes", [10**9, 7_000])
def test_shards_do_not_change_the_weights(
    tmp_path: Path, recipe: Path, plan: Plan, shard_bytes: int
) -> None:
    one = weights_in(merge(plan, tmp_path / "one", ignore))
    other = weights_in(merge(plan_for(recipe, shard_bytes=shard_bytes), tmp_path / "other", ignore))
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_does_not_change_a_bit(
    tmp_path: Path,
    plan: Plan,
    reference: dict[str, str],
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(workers)))
    assert contents(merge(plan, tmp_path / "out", ignore)) == reference


def test_small_blocks_and_pieces_do_not_change_the_weights(
    tmp_path: Path, plan: Plan, reference: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that begin, end and are cut in the middle of blocks, as those of large models are."""
    monkeypatch.setattr(mixing, "BLOCK_BYTES", 4096)
    for size in ("BLOCK_BYTES", "DIGEST_BYTES"):
        monkeypatch.setattr(f"studio.weights.writer.{size}", 4096)
    out = merge(plan, tmp_path / "out", ignore)
    found = contents(out)
    shards = [name for name in reference if name.endswith(".safetensors")]
    assert len(shards) == 4
    assert {name: found[name] for name in shards} == {name: reference[name] for name in shards}


def test_progress_goes_up_to_all_bytes(tmp_path: Path, plan: Plan) -> None:
    seen: list[Progress] = []
    merge(plan, tmp_path / "out", seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done) and done[0] == 0
    assert done[-1] == seen[-1].total == plan.bytes_written
    assert all(progress.resumed == 0 for progress in seen)
    assert seen[-1].tensor == "lm_head.weight"


@pytest.mark.parametrize("shards", [0, 1, 2, 3])
def test_a_cancelled_merge_resumes_to_the_same_bytes(
    tmp_path: Path, plan: Plan, reference: dict[str, str], shards: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merge(plan, out, interrupt_after(shards, out))
    assert not out.exists()
    assert finished_shards(out) == shards

    seen: list[Progress] = []
    merge(plan, out, seen.append)
    assert contents(out) == reference
    assert (seen[0].resumed > 0) == (shards > 0)
    assert seen[0].done == seen[0].resumed
    assert not partial_folder(out).exists()


def test_finished_shards_are_not_written_again(
    tmp_path: Path, plan: Plan, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merge(plan, out, interrupt_after(2, out))
    first = partial_folder(out) / plan.shards[0].file
    before = (first.stat().st_ino, first.stat().st_mtime_ns)
    merge(plan, out, ignore)
    after = (out / first.name).stat()
    assert (after.st_ino, after.st_mtime_ns) == before
    assert contents(out) == reference


def other_recipe(recipe: Path, models: list[Path]) -> Plan:
    return plan_for(write_recipe(recipe, models, t=0.75), shard_bytes=SHARD)


def other_dtype(recipe: Path, models: list[Path]) -> Plan:
    return plan_for(recipe, shard_bytes=SHARD, dtype="float16")


def other_shards(recipe: Path, models: list[Path]) -> Plan:
    return plan_for(recipe, shard_bytes=SHARD // 2)


def other_source(recipe: Path, models: list[Path]) -> Plan:
    write_checkpoint(models[2], seed=9, layers=3)
    return plan_for(recipe, shard_bytes=SHARD)


def touched_source(recipe: Path, models: list[Path]) -> Plan:
    """One bit differs, where no sample looks; the file's time of change gives it away."""
    path = models[2] / "model.safetensors"
    before = plan_for(recipe).sources[2].fingerprint()
    data = bytearray(path.read_bytes())
    at = (len(data) - 4096) * 13 // 15 + 4096 + 100  # between two of the sixteen samples
    data[at] ^= 1
    path.write_bytes(data)
    plan = plan_for(recipe, shard_bytes=SHARD)
    assert plan.sources[2].fingerprint() == before
    return plan


@pytest.mark.parametrize(
    "change", [other_recipe, other_dtype, other_shards, other_source, touched_source]
)
def test_changed_work_never_resumes_stale_shards(
    tmp_path: Path,
    plan: Plan,
    recipe: Path,
    models: list[Path],
    change: Callable[[Path, list[Path]], Plan],
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merge(plan, out, interrupt_after(2, out))
    changed = change(recipe, models)
    seen: list[Progress] = []
    merge(changed, out, seen.append)
    assert seen[0].resumed == 0
    assert contents(out) == contents(merge(changed, tmp_path / "fresh", ignore))


def test_a_shard_that_is_gone_or_cut_is_written_again(
    tmp_path: Path, plan: Plan, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merge(plan, out, interrupt_after(3, out))
    (partial_folder(out) / plan.shards[0].file).unlink()
    os.truncate(partial_folder(out) / plan.shards[1].file, 100)
    merge(plan, out, ignore)
    assert contents(out) == reference


def test_a_second_merge_to_the_same_output_is_refused(
    tmp_path: Path, recipe: Path, models: list[Path], plan: Plan, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    other = plan_for(write_recipe(tmp_path / "other.yaml", models, t=0.1))

    def start_another(progress: Progress) -> None:
        for second in (plan, other):
            with pytest.raises(StudioError, match="another merge is writing here"):
                merge(second, out, ignore)

    merge(plan, out, start_another)
    assert contents(out) == reference


def test_nan_stops_the_merge_and_leaves_no_model(tmp_path: Path, models: list[Path]) -> None:
    name = "model.layers.2.self_attn.v_proj.weight"
    bad = {name: torch.full((16, 32), torch.nan, dtype=torch.bfloat16)}
    models[2] = write_checkpoint(tmp_path / "bad", seed=3, layers=3, extra=bad)
    plan = plan_for(write_recipe(tmp_path / "recipe.yaml", models), shard_bytes=SHARD)
    out = tmp_path / "out"
    with pytest.raises(StudioError, match=f"{models[2]}/model.safetensors: tensor {name}.*NaN"):
        merge(plan, out, ignore)
    assert not out.exists()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_in_a_tensor_that_is_only_copied_stops_the_merge(
    tmp_path: Path, models: list[Path], value: float
) -> None:
    bad = {"model.extra.weight": torch.tensor([1.0, value])}
    models[0] = write_checkpoint(tmp_path / "bad", layers=3, extra=bad)
    plan = plan_for(write_recipe(tmp_path / "recipe.yaml", models), missing="base")
    with pytest.raises(StudioError, match="model.extra.weight.*NaN"):
        merge(plan, tmp_path / "out", ignore)


def test_an_infinite_mask_is_a_constant_and_copied(tmp_path: Path, models: list[Path]) -> None:
    name = "model.layers.0.attn.bias"
    mask = {name: torch.tensor([0.0, -torch.inf])}
    models[0] = write_checkpoint(tmp_path / "masked", layers=3, extra=mask)
    plan = plan_for(write_recipe(tmp_path / "recipe.yaml", models))
    assert torch.equal(weights_in(merge(plan, tmp_path / "out", ignore))[name], mask[name])


def test_a_result_beyond_float16_is_refused(tmp_path: Path, models: list[Path]) -> None:
    big = {"model.norm.weight": torch.full((32,), 1e5, dtype=torch.bfloat16)}
    models = write_sources(tmp_path / "big", layers=3, extra=big)
    recipe = write_recipe(tmp_path / "recipe.yaml", models)
    with pytest.raises(StudioError, match="model.norm.weight.*float16.*bfloat16 or float32"):
        merge(plan_for(recipe, dtype="float16"), tmp_path / "out", ignore)
    assert not (tmp_path / "out").exists()
    merge(plan_for(recipe, dtype="float32"), tmp_path / "fine", ignore)


def test_values_whose_squares_overflow_are_merged_exactly(tmp_path: Path) -> None:
    big = {"model.norm.weight": torch.linspace(1e30, 3e30, 32)}
    models = write_sources(tmp_path / "big", layers=3, dtype="float32", extra=big)
    plan = plan_for(write_recipe(tmp_path / "recipe.yaml", models), dtype="float32")
    merged = weights_in(merge(plan, tmp_path / "out", ignore))["model.norm.weight"]
    torch.testing.assert_close(merged, big["model.norm.weight"])


def test_empty_and_single_element_tensors_pass(tmp_path: Path) -> None:
    extra = {"model.none": torch.empty(0, 4), "model.scale": torch.tensor(2.0)}
    extra["lm_head.bias"] = torch.empty(0)
    models = write_sources(tmp_path / "odd", layers=3, extra=extra)
    merged = weights_in(
        merge(plan_for(write_recipe(tmp_path / "recipe.yaml", models)), tmp_path / "out", ignore)
    )
    assert merged["model.none"].shape == (0, 4)
    assert merged["model.scale"] == 2.0 and merged["model.scale"].shape == ()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_clear_error_and_resumable(
    tmp_path: Path,
    plan: Plan,
    reference: dict[str, str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, real, left = tmp_path / "out", os.pwrite, [3]

    def pwrite(handle: int, data: Any, offset: int) -> int:
        if not left[0]:
            raise OSError(code, os.strerror(code))
        left[0] -= 1
        return real(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr("studio.weights.writer.os.pwrite", pwrite)
        with pytest.raises(StudioError, match="disk is full; free at least .* to resume"):
            merge(plan, out, ignore)
    assert not out.exists() and 0 < finished_shards(out) <= 3
    merge(plan, out, ignore)
    assert contents(out) == reference


def test_a_shard_that_vanishes_during_the_merge_gets_no_final_name(
    tmp_path: Path, plan: Plan
) -> None:
    out = tmp_path / "out"

    def remove_the_first(progress: Progress) -> None:
        if finished_shards(out) == 2:
            (partial_folder(out) / plan.shards[0].file).unlink(missing_ok=True)

    with pytest.raises(StudioError, match="is not the one that was written"):
        merge(plan, out, remove_the_first)
    assert not out.exists()


def test_a_shard_whose_header_changes_gets_no_final_name(tmp_path: Path, plan: Plan) -> None:
    out = tmp_path / "out"

    def spoil_the_first(progress: Progress) -> None:
        if finished_shards(out) == 2:
            with (partial_folder(out) / plan.shards[0].file).open("r+b") as file:
                file.write(b"xx")

    with pytest.raises(StudioError, match="is not the one that was written"):
        merge(plan, out, spoil_the_first)
    assert not out.exists()


def test_a_killed_last_step_is_finished_by_the_same_command(
    tmp_path: Path, recipe: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_remove_journal", die)
        with pytest.raises(KeyboardInterrupt):
            merge(plan, out, ignore)
    assert (out / JOURNAL).exists()
    again = plan_for(recipe, out, shard_bytes=SHARD)
    assert merge(again, out, ignore) == out
    assert not (out / JOURNAL).exists()
    assert contents(out) == contents(merge(plan, tmp_path / "other", ignore))


def test_a_killed_last_step_keeps_its_model_from_another_recipe(
    tmp_path: Path, models: list[Path], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    merge(plan, out, ignore)
    before = contents(out)
    with Journal(tmp_path / "j", plan.fingerprint):
        (tmp_path / "j" / JOURNAL).rename(out / JOURNAL)
    other = plan_for(write_recipe(tmp_path / "other.yaml", models, t=0.1), out)
    with pytest.raises(StudioError, match="result of another recipe"):
        merge(other, out, ignore)
    (out / JOURNAL).unlink()
    assert contents(out) == before


def test_an_output_that_appears_during_the_merge_is_not_overwritten(
    tmp_path: Path, plan: Plan, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"

    def appear(progress: Progress) -> None:
        out.mkdir(exist_ok=True)
        (out / "precious").write_text("x")

    with pytest.raises(StudioError, match="complete but cannot take this name"):
        merge(plan, out, appear)
    assert [path.name for path in out.iterdir()] == ["precious"]
    (out / "precious").unlink()
    merge(plan, out, ignore)
    assert contents(out) == reference


def test_an_empty_folder_or_a_link_to_one_may_be_the_output(
    tmp_path: Path, recipe: Path, reference: dict[str, str]
) -> None:
    for name in ("empty", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("empty", "link"):
        out = tmp_path / name
        merge(plan_for(recipe, out, shard_bytes=SHARD), out, ignore)
        assert contents(out) == reference
    assert (tmp_path / "link").is_symlink()


def test_cuda_without_a_gpu_is_a_clear_error(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudioError, match="no CUDA device; use --device cpu"):
        merge(plan_for(recipe, device="cuda"), tmp_path / "out", ignore)
    assert not partial_folder(tmp_path / "out").exists()


def test_journal_keeps_what_the_report_needs(tmp_path: Path, plan: Plan) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        merge(plan, out, interrupt_after(1, out))
    with Journal(partial_folder(out), plan.fingerprint) as journal:
        (record,) = journal.records
    assert set(record.tensors) == {job.name for job in plan.shards[0].tensors}
    for name, found in record.tensors.items():
        x = torch.stack([s.load(name).double().flatten() for s in plan.sources])
        np.testing.assert_allclose(found.gram, (x @ x.T).numpy(), rtol=1e-5)
        assert len(found.weights) == 3


def test_nothing_is_noted_before_it_is_safe_on_the_disk(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of syncs, lines in the journal and the rename, which no kill -9 can test."""
    log: list[tuple[str, int]] = []
    sync, write, rename = os.fsync, os.write, os.rename

    def noted_sync(handle: int) -> None:
        sync(handle)
        log.append(("synced", os.fstat(handle).st_ino))

    def noted_write(handle: int, data: bytes) -> int:
        log.append(("line", os.fstat(handle).st_ino))
        return write(handle, data)

    def noted_rename(*paths: Path) -> None:
        log.append(("renamed", os.stat(paths[0]).st_ino))
        rename(*paths)

    monkeypatch.setattr("os.fsync", noted_sync)
    monkeypatch.setattr("studio.merge.journal.os.write", noted_write)
    monkeypatch.setattr("studio.merge.run.os.rename", noted_rename)
    out = merge(plan, tmp_path / "out", ignore)
    inode = {path.name: path.stat().st_ino for path in out.iterdir()}
    lines = [number for number, (what, _) in enumerate(log) if what == "line"]
    journal = log[lines[0]][1]
    assert len(lines) == 1 + len(plan.shards)
    for shard, line in zip(plan.shards, lines[1:], strict=True):
        assert ("synced", inode[shard.file]) in log[:line]
        assert log[line + 1] == ("synced", journal)
    renamed = log.index(("renamed", out.stat().st_ino))
    for name in inode:
        assert ("synced", inode[name]) in log[:renamed], name
    assert log[renamed - 1] == ("synced", out.stat().st_ino), "the folder itself"
    assert log[-1] == ("synced", tmp_path.stat().st_ino), "and its name"


@pytest.mark.parametrize("how", ["rewritten", "touched", "removed"])
def test_a_source_that_changes_during_the_merge_gives_no_model(
    tmp_path: Path, models: list[Path], plan: Plan, how: str
) -> None:
    """Half of the result would be of the old weights, half of the new ones."""
    out = tmp_path / "out"
    changed = models[1] / "model.safetensors"

    def change(progress: Progress) -> None:
        if how == "removed" and progress.done == progress.total:
            changed.unlink()
        elif how == "rewritten" and finished_shards(out) == 2:
            write_checkpoint(models[1], seed=7, layers=3)
        elif how == "touched" and finished_shards(out) == 2:
            os.utime(changed, ns=(1, 1))

    with pytest.raises(StudioError, match=f"{models[1]}.*(has changed during|any more)"):
        merge(plan, out, change)
    assert not out.exists()


def test_a_source_that_disappears_during_the_merge_is_a_clear_error(
    tmp_path: Path, models: list[Path], plan: Plan
) -> None:
    def remove(progress: Progress) -> None:
        (models[2] / "model.safetensors").unlink(missing_ok=True)

    with pytest.raises(StudioError, match=str(models[2])):
        merge(plan, tmp_path / "out", remove)
    assert not (tmp_path / "out").exists()


def test_tensors_at_odd_offsets_give_the_same_weights(
    tmp_path: Path, models: list[Path], recipe: Path
) -> None:
    """A header of odd length puts every element across the borders of its type."""
    even = weights_in(merge(plan_for(recipe), tmp_path / "even", ignore))
    for shift, model in enumerate(models):
        path = model / "model.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + length].rstrip() + b" " * (8 + 2 * shift)
        header += b" " * (1 - len(header) % 2)
        assert len(header) % 2 == 1
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    odd = weights_in(merge(plan_for(recipe), tmp_path / "odd", ignore))
    assert all(torch.equal(even[name], odd[name]) for name in even)
