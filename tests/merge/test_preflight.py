"""Preflight: everything that is wrong, at once, before a byte of weights is read."""

import json
import os
import shutil
import tempfile
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from studio.errors import StudioError
from studio.merge import preflight
from studio.merge.output import partial_folder
from studio.merge.plan import Plan
from studio.merge.run import merge
from studio.merge.summary import summary, summary_text
from studio.weights.checkpoint import Checkpoint
from tests.checkpoints import write_checkpoint, write_tokenizer
from tests.faults.merging import plan_for, write_recipe, write_sources


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return write_sources(tmp_path, layers=2)


@pytest.fixture
def recipe(tmp_path: Path, models: list[Path]) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", models)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(recipe: Path, *parts: str, out: Path | None = None, **options: Any) -> str:
    with pytest.raises(StudioError) as caught:
        plan_for(recipe, out, **options)
    text = str(caught.value)
    for part in parts:
        assert part in text, text
    return text


def test_a_sound_recipe_gives_a_plan_and_reads_no_weights(
    recipe: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Checkpoint, name: str) -> None:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(Checkpoint, "load", read)
    plan = plan_for(recipe)
    assert [source.path for source in plan.sources] == models
    assert (plan.dtype, len(plan.shards), plan.layout.num_layers) == ("BF16", 1, 2)
    assert plan.warnings == () and plan.notes == ()


def test_announced_bytes_are_the_bytes_on_disk(tmp_path: Path, recipe: Path) -> None:
    plan = plan_for(recipe, tmp_path / "out", shard_bytes=20_000)
    merge(plan, tmp_path / "out", lambda progress: None)
    found = summary(plan)
    written = [path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")]
    assert found["bytes_written"] == sum(written) and found["shards"] == len(written) == 3
    assert found["bytes_read"] == sum(source["bytes"] for source in found["sources"])
    sizes = {s.label: sum(t.nbytes for t in load_file(s.files[0]).values()) for s in plan.sources}
    assert {source["model"]: source["bytes"] for source in found["sources"]} == sizes
    assert found["seconds"] > 0 and found["peak_memory"] < 500e6
    text = summary_text(found)
    for part in (
        "2 layers, 21 tensors",
        "of bfloat16 in 3 files\n",
        "MB of memory",
        "ready to merge",
    ):
        assert part in text


def test_shards_keep_to_the_limit_and_hold_every_tensor_once(recipe: Path) -> None:
    plan = plan_for(recipe, shard_bytes=8_000)
    names = [job.name for shard in plan.shards for job in shard.tensors]
    assert sorted(names) == sorted(plan.sources[0].tensors)
    count = len(plan.shards)
    for number, shard in enumerate(plan.shards, 1):
        assert shard.file == f"model-{number:05}-of-{count:05}.safetensors"
        assert shard.nbytes <= 8_000 or len(shard.tensors) == 1


@pytest.mark.parametrize(
    ("dtypes", "wanted", "result"),
    [
        (("bfloat16",) * 3, None, "BF16"),
        (("float16",) * 3, None, "F16"),
        (("float16", "bfloat16", "bfloat16"), None, "F32"),
        (("float32",) * 3, "float16", "F16"),
    ],
)
def test_dtype_and_config_of_the_result_agree(
    tmp_path: Path, dtypes: tuple[str, ...], wanted: str | None, result: str
) -> None:
    models = [
        write_checkpoint(tmp_path / f"m{i}", seed=i, dtype=dtype, layers=2)
        for i, dtype in enumerate(dtypes)
    ]
    recipe = write_recipe(tmp_path / "recipe.yaml", models)
    recipe.write_text(recipe.read_text().replace("dtype: bfloat16\n", ""))
    plan = plan_for(recipe, dtype=wanted)
    assert plan.dtype == result
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    assert plan.config["torch_dtype"] == names[result]


def test_an_own_head_unties_the_config(tmp_path: Path) -> None:
    models = [write_checkpoint(tmp_path / f"m{i}", seed=i, layers=2, tied=i == 0) for i in range(3)]
    plan = plan_for(write_recipe(tmp_path / "recipe.yaml", models))
    assert plan.config["tie_word_embeddings"] is False
    assert plan.config["vocab_size"] == 96
    assert any("ties its output head" in note for note in plan.notes)


def test_the_house_trap(tmp_path: Path) -> None:
    big, small = {"hidden_size": 64, "layers": 3}, {"hidden_size": 32, "layers": 2}
    models = [
        write_checkpoint(tmp_path / "Mythospice-70b", **big),
        write_checkpoint(tmp_path / "Xwin-LM-7B-V0.1", seed=2, **small),
        write_checkpoint(tmp_path / "Nous-Hermes-Llama2-70b", seed=3, **big),
    ]
    text = refused(
        write_recipe(tmp_path / "recipe.yaml", models),
        f"{models[1]} has hidden_size 32, but {models[0]}, {models[2]} have 64",
        f"{models[1]} has num_hidden_layers 2, but",
        f"probably {tmp_path}/Xwin-LM-70B-V0.1 is meant",
    )
    assert "model.layers" not in text, "the tensors are not listed one by one as well"


def break_config(folder: Path) -> None:
    edit_config(folder, rope_theta=1e6)


def break_vocabulary(folder: Path) -> None:
    shutil.rmtree(folder)
    write_checkpoint(folder, seed=3, layers=2, vocab_size=101)


def break_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"w3": 3, "w4": 4', '"w4": 3, "w3": 4'))


def break_shards(folder: Path) -> None:
    shutil.rmtree(folder)
    write_checkpoint(folder, seed=3, layers=2, shards=3)
    (folder / "model-00001-of-00003.safetensors").unlink()
    (folder / "model-00003-of-00003.safetensors").unlink()


def break_length(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)


def break_quantisation(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


BREAKAGES: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (break_config, ("rope_theta differs", "1000000.0", "--allow rope_theta")),
    (break_vocabulary, ("embed_tokens", "[96, 32]", "[101, 32]", "tokenizer_source: base")),
    (break_tokenizer, ("2 ids different meanings", "3 is 'w3' / 'w4'")),
    (break_shards, ("2 of 3", "model-00001-of-00003", "model-00003-of-00003")),
    (break_length, ("model.safetensors", "cut short")),
    (break_quantisation, ("quantised", "unquantised original")),
    (remove_config, ("config.json", "cannot be read")),
    (shutil.rmtree, ("there is no such folder",)),
]


@pytest.mark.parametrize(("break_it", "parts"), BREAKAGES, ids=lambda v: getattr(v, "__name__", ""))
def test_refuses(
    recipe: Path, models: list[Path], break_it: Callable[[Path], None], parts: tuple[str, ...]
) -> None:
    break_it(models[2])
    refused(recipe, str(models[2]), *parts)


def test_every_problem_is_listed_at_once(tmp_path: Path, recipe: Path, models: list[Path]) -> None:
    edit_config(models[0], rms_norm_eps=1e-6)
    break_shards(models[1])
    break_tokenizer(models[1])
    break_length(models[2])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    recipe.write_text(recipe.read_text() + "chat_template: vicunia\n")
    text = refused(
        recipe,
        "(7 problems)",
        "rms_norm_eps differs",
        "2 ids different meanings",
        f"{models[1]}: 2 of 3 files of weights are missing",
        "cut short",
        "is not an empty folder",
        'chat_template "vicunia" is not known (did you mean "vicuna"?)',
        out=tmp_path / "out",
    )
    assert text.count("\n- ") == 7


def test_shapes_and_missing_tensors_together(tmp_path: Path) -> None:
    models = write_sources(tmp_path, layers=2)
    shutil.rmtree(models[1])
    write_checkpoint(models[1], layers=2, without=("layers.1.mlp.up", "model.norm"))
    break_vocabulary(models[2])
    recipe = write_recipe(tmp_path / "recipe.yaml", models)
    refused(recipe, "lm_head.weight have different shapes", f"{models[1]} lacks", "(2 problems)")


def test_allowed_differences_are_warnings(recipe: Path, models: list[Path]) -> None:
    break_config(models[2])
    break_tokenizer(models[1])
    plan = plan_for(recipe, allow=frozenset({"rope_theta", "tokenizer"}))
    assert len(plan.warnings) == 3, plan.warnings
    assert "rope_theta differs" in plan.warnings[0]
    assert "different meanings" in plan.warnings[1]


@pytest.mark.parametrize("layers", [None, 0, -1, 2.0, "2", True, [2], 10**12, 3])
def test_a_senseless_number_of_layers_is_a_clear_error(
    recipe: Path, models: list[Path], layers: Any
) -> None:
    for model in models:
        edit_config(model, num_hidden_layers=layers)
    refused(recipe, "layers")


def test_a_rule_that_matches_nothing_is_found(recipe: Path) -> None:
    text = recipe.read_text().replace("t: 0.5}", "t: [{filter: mlp, value: 0.5}]}")
    recipe.write_text(text)
    refused(recipe, "no rule of t matches model.embed_tokens.weight")


def test_a_rule_that_matches_nothing_is_listed_with_the_rest(
    recipe: Path, models: list[Path]
) -> None:
    recipe.write_text(recipe.read_text().replace("t: 0.5}", "t: [{filter: mlp, value: 0.5}]}"))
    edit_config(models[1], rope_theta=5e5)
    refused(recipe, "- rope_theta differs", "- stage Result: no rule of t matches model.embed")


def test_a_rule_for_no_tensor_is_a_warning(recipe: Path) -> None:
    rules = "t: [{filter: self_atn, value: 1}, {filter: mlp, value: 0.2}, {value: 0.5}]}"
    recipe.write_text(recipe.read_text().replace("t: 0.5}", rules))
    assert list(plan_for(recipe).warnings) == [
        'stage Result: the rule of t for "self_atn" changes nothing, no tensor has that in its '
        'name (did you mean "self_attn"?)'
    ]


Usage = namedtuple("Usage", "total used free")


def test_too_little_room_says_how_much_is_needed(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 50_000_000))
    refused(recipe, str(tmp_path), "has 0.05 GB free, the result needs 0.07", out=tmp_path / "out")


GB = 10**9


@pytest.fixture
def on_the_hub(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose sources are 30, 40 and 0 GB of downloads away; no disk lacks the room."""
    missing = cycle([30 * GB, 40 * GB, 0])

    def open_model(model: str) -> Checkpoint:
        return replace(Checkpoint.open(Path(model), model), missing=next(missing))

    monkeypatch.setattr(preflight, "open_model", open_model)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000 * GB))
    return recipe


def test_downloads_that_do_not_fit_are_told(
    on_the_hub: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 69 * GB))
    refused(
        on_the_hub,
        f"{models[0]} has 69.00 GB free, the download of {models[0]}, {models[1]} needs 70.00 GB; "
        "free 1.00 GB, or set HF_HUB_CACHE to a folder on a larger disk",
    )


def test_downloads_and_result_on_one_disk_need_room_for_both(
    tmp_path: Path, on_the_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 70 * GB + (64 << 20)))
    wants = "the result needs 0.07 GB and the download of"
    found = refused(on_the_hub, wants, out=tmp_path / "out")
    assert "choose another output, or set HF_HUB_CACHE" in found
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 71 * GB))
    assert plan_for(on_the_hub, tmp_path / "out").bytes_missing == 70 * GB


def test_downloads_and_result_on_two_disks_have_the_room_of_each(
    on_the_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("/dev/shm")
    if other.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("this machine has one disk only")
    free = {other: 1 * GB}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free.get(path, 70 * GB)))
    assert plan_for(on_the_hub, other / "studio-out").bytes_missing == 70 * GB


def test_summary_tells_what_is_to_be_downloaded(on_the_hub: Path) -> None:
    found = summary(plan_for(on_the_hub))
    assert found["bytes_missing"] == 70 * GB
    assert [source["bytes_missing"] for source in found["sources"]] == [30 * GB, 40 * GB, 0]
    text = summary_text(found)
    assert text.count("GB to download") == 2 and ", 40.00 GB to download\n" in text
    assert "\ndownloads 70.00 GB first\n" in text


def test_what_is_written_already_counts_as_room(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plan = plan_for(recipe, out, shard_bytes=20_000)

    def stop(progress: Any) -> None:
        if progress.done > plan.bytes_written / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(plan, out, stop)
    free = (64 << 20) + plan.bytes_written * 3 // 4
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free))
    plan_for(recipe, out, shard_bytes=20_000)
    refused(recipe, "GB free", out=tmp_path / "elsewhere", shard_bytes=20_000)


def a_file(out: Path) -> None:
    out.write_text("precious")


def a_full_folder(out: Path) -> None:
    out.mkdir()
    (out / ".hidden").write_text("precious")


def a_foreign_partial(out: Path) -> None:
    partial_folder(out).mkdir()
    (partial_folder(out) / "holiday.jpg").write_text("precious")


def a_partial_file(out: Path) -> None:
    partial_folder(out).write_text("precious")


def below_a_file(out: Path) -> None:
    out.parent.write_text("precious")


def a_loop(out: Path) -> None:
    out.symlink_to(out)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (a_file, "is not an empty folder"),
        (a_full_folder, "is not an empty folder"),
        (a_foreign_partial, "no merge has made it"),
        (a_partial_file, "no merge has made it"),
        (below_a_file, "is not a folder that may be written to"),
        (a_loop, "cannot be written"),
    ],
)
def test_an_unfit_output_is_refused_and_left_alone(
    tmp_path: Path, recipe: Path, make: Callable[[Path], None], part: str
) -> None:
    out = tmp_path / "place" / "out"
    if make is not below_a_file:
        out.parent.mkdir()
    make(out)
    before = sorted((path, os.lstat(path).st_mtime_ns) for path in tmp_path.rglob("*"))
    refused(recipe, str(out), part, out=out)
    assert sorted((path, os.lstat(path).st_mtime_ns) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("out", "part"),
    [
        ("/", "root of a disk"),
        ("x" * 300, "cannot be written"),
        ("/dev/null/none", "/dev/null is not a folder"),
    ],
)
def test_an_impossible_output_is_refused(recipe: Path, out: str, part: str) -> None:
    refused(recipe, part, out=Path(out))


def test_a_folder_below_several_that_do_not_exist_is_fine(tmp_path: Path, recipe: Path) -> None:
    assert isinstance(plan_for(recipe, tmp_path / "a" / "b" / "c"), Plan)


def test_the_fingerprint_changes_with_all_that_changes_the_weights(
    tmp_path: Path, models: list[Path], recipe: Path
) -> None:
    first = plan_for(recipe).fingerprint
    assert plan_for(recipe).fingerprint == first
    others = {
        "dtype": plan_for(recipe, dtype="float32").fingerprint,
        "shards": plan_for(recipe, shard_bytes=20_000).fingerprint,
        "recipe": plan_for(write_recipe(tmp_path / "2.yaml", models, t=0.6)).fingerprint,
    }
    os.utime(models[1] / "model.safetensors", ns=(1, 1))
    others["touched"] = plan_for(recipe).fingerprint
    weights = load_file(models[1] / "model.safetensors")
    weights["model.norm.weight"] += torch.ones(1).to(torch.bfloat16)
    write_checkpoint(models[1], seed=2, near=(1, 0.3), layers=2, extra=weights)
    os.utime(models[1] / "model.safetensors", ns=(1, 1))
    others["changed"] = plan_for(recipe).fingerprint
    edit_config(models[0], bos_token_id=7)
    others["config"] = plan_for(recipe).fingerprint
    assert len({first, *others.values()}) == 7, others


def test_hidden_tokenizer_words(tmp_path: Path, models: list[Path], recipe: Path) -> None:
    write_tokenizer(models[1], 90)
    plan = plan_for(recipe)
    assert sum("has 90" in warning for warning in plan.warnings) == 2


def test_too_little_room_is_listed_with_the_rest(
    tmp_path: Path, recipe: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 50_000_000))
    break_config(models[1])
    break_vocabulary(models[2])
    refused(recipe, "GB free", "rope_theta differs", "by token", out=tmp_path / "out")


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 5, 128])
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_many_cores_and_wide_types_keep_to_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    models = write_sources(tmp_path, layers=2, dtype="float32", format=format)
    recipe = write_recipe(tmp_path / "recipe.yaml", models)
    plan = plan_for(recipe)
    assert plan.workers == min(cores, 4)
    assert summary(plan)["peak_memory"] < 500e6
    assert plan_for(recipe, device="cuda").workers == 1
