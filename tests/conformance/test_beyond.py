"""Where the engine differs from mergekit on purpose: buffers, missing tensors, true configs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from studio.errors import StudioError
from studio.merge.plan import Options
from tests.checkpoints import write_checkpoint
from tests.conformance.cases import stage
from tests.conformance.conftest import load_folder, recipe_text, run_engine

EXTRA = "model.layers.1.mlp.extra.weight"


def merged(
    home: Path, dtype: str | None, options: Options | None = None, **of_source: dict[str, Any]
) -> Path:
    """Slerp of sources A and B at t = 0.5, each of its own options."""
    folders = {
        name: str(write_checkpoint(home / name, seed=i, **chosen))
        for i, (name, chosen) in enumerate(of_source.items())
    }
    more = {"dtype": dtype} if dtype else {}
    recipe = recipe_text([stage(folders["A"], folders["B"], 0.5, **more)])
    return run_engine(recipe, home / "out", options)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_inv_freq_is_copied_from_the_base_unrounded(tmp_path: Path, dtype: str) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    values = torch.tensor([1.0, 0.1234567, 1e-5])
    own = {"A": {"extra": {name: values}}, "B": {"extra": {name: values * 3}}}
    result = load_folder(merged(tmp_path, dtype, **own))
    assert result[name].dtype == torch.float32
    assert torch.equal(result[name], values)


def test_integer_buffer_is_copied_from_the_base(tmp_path: Path) -> None:
    name = "model.embeddings.position_ids"
    own = {"A": {"extra": {name: torch.arange(8)}}, "B": {"extra": {name: torch.arange(8) + 1}}}
    assert torch.equal(load_folder(merged(tmp_path, None, **own))[name], torch.arange(8))


@pytest.mark.parametrize("owner", ["A", "B"])
def test_tensor_only_one_source_has_is_refused_by_name(tmp_path: Path, owner: str) -> None:
    own = {"A": {}, "B": {}} | {owner: {"extra": {EXTRA: torch.ones(4, 4)}}}
    lacking = {"A": "B", "B": "A"}[owner]
    with pytest.raises(StudioError, match=f"{tmp_path / lacking} lacks {EXTRA}.*--missing base"):
        merged(tmp_path, None, **own)


@pytest.mark.parametrize(("owner", "kept"), [("A", True), ("B", False)])
def test_missing_base_takes_the_bases_tensor_or_none(
    tmp_path: Path, owner: str, kept: bool
) -> None:
    own = {"A": {}, "B": {}} | {owner: {"extra": {EXTRA: torch.full((4, 4), 0.375)}}}
    result = load_folder(merged(tmp_path, "bfloat16", Options(missing="base"), **own))
    assert (EXTRA in result) is kept
    if kept:
        assert torch.equal(result[EXTRA].float(), own["A"]["extra"][EXTRA].float())


@pytest.mark.parametrize(
    ("first", "second", "asked", "expected"),
    [
        ("bfloat16", "bfloat16", None, "bfloat16"),
        ("float16", "float16", None, "float16"),
        ("bfloat16", "float16", None, "float32"),
        ("bfloat16", "float32", None, "float32"),
        ("float32", "float16", "bfloat16", "bfloat16"),
    ],
)
def test_config_names_the_dtype_of_the_tensors(
    tmp_path: Path, first: str, second: str, asked: str | None, expected: str
) -> None:
    folder = merged(tmp_path, asked, A={"dtype": first}, B={"dtype": second})
    config = config_of(folder)
    assert config.get("dtype", config.get("torch_dtype")) == expected
    assert {str(t.dtype) for t in load_folder(folder).values()} == {f"torch.{expected}"}


@pytest.mark.parametrize("shards", [1, 3])
def test_output_shards_hold_the_same_tensors(tmp_path: Path, shards: int) -> None:
    """Small shards, with an index that names each tensor's file, and the same bits."""
    sources = {"A": {"shards": shards}, "B": {"format": "bin"}}
    whole = load_folder(merged(tmp_path / "whole", None, **sources))
    folder = merged(tmp_path / "parts", None, Options(shard_bytes=20_000), **sources)
    parts = load_folder(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3
    assert index["weight_map"].keys() == parts.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
