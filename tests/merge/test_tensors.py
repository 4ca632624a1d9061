"""Which tensors the result has, and where each comes from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from studio.merge.findings import VocabularyProblem
from studio.merge.plan import PIECE_BYTES, TensorJob
from studio.merge.tensors import Matching, Wanted, match_tensors
from studio.weights.checkpoint import Checkpoint
from studio.weights.dtypes import ITEMSIZE
from studio.weights.header import TensorInfo
from tests.checkpoints import write_checkpoint


def sources(tmp_path: Path, *options: dict[str, Any]) -> list[Checkpoint]:
    found = []
    for number, given in enumerate(options):
        folder = write_checkpoint(tmp_path / str(number), **{"layers": 2} | given)
        found.append(Checkpoint.open(folder, f"model-{number}"))
    return found


def match(opened: list[Checkpoint], missing: str = "error", dtype: str = "BF16") -> Matching:
    return match_tensors(Wanted(opened, 2, dtype, missing))


def test_equal_models_are_mixed_whole_and_the_layers_come_first(tmp_path: Path) -> None:
    opened = sources(tmp_path, {"seed": 1, "shards": 3}, {"seed": 2, "format": "bin"})
    found = match(opened)
    assert (found.problems, found.notes) == ([], [])
    names = [job.name for job in found.jobs]
    assert set(names) == set(opened[0].tensors)
    outside = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    assert names[-3:] == outside
    assert found.layout.names == (outside[0], *names[:-3], *outside[1:])
    for job in found.jobs:
        assert job.sources == (0, 1)
        assert [info.name for info in job.inputs] == [job.name] * 2
        assert [info.file.parent for info in job.inputs] == [s.path for s in opened]


def test_the_result_has_the_wanted_dtype_whatever_the_sources_have(tmp_path: Path) -> None:
    opened = sources(tmp_path, {"dtype": "float16"}, {"dtype": "float32"})
    jobs = match(opened, dtype="F16").jobs
    assert {job.dtype for job in jobs} == {"F16"}
    assert all(job.nbytes == 2 * job.numel for job in jobs)
    assert all(job.source_bytes == 6 * job.numel for job in jobs)


def test_constants_and_integers_are_copied_from_the_base_in_their_own_dtype(tmp_path: Path) -> None:
    rope = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(4)}
    ids = {"model.position_ids": torch.arange(8)}
    opened = sources(tmp_path, {"extra": rope | ids}, {"extra": ids, "seed": 2})
    found = match(opened)
    copied = {job.name: job for job in found.jobs if len(job.sources) == 1}
    assert set(copied) == {*rope, *ids}
    assert copied["model.position_ids"].dtype == "I64"
    assert copied["model.layers.0.self_attn.rotary_emb.inv_freq"].dtype == "F32"
    assert all(job.sources == (0,) for job in copied.values())
    assert not set(copied) & set(found.layout.names)
    assert any("copied from model-0" in note for note in found.notes)


def test_a_constant_that_only_another_model_has_is_left_out_and_said(tmp_path: Path) -> None:
    rope = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(4)}
    found = match(sources(tmp_path, {}, {"extra": rope}))
    assert not any("inv_freq" in job.name for job in found.jobs)
    assert any("not in model-0 and left out" in n and "inv_freq" in n for n in found.notes)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_missing_tensor_is_refused_naming_who_lacks_it(tmp_path: Path, lacking: int) -> None:
    options: list[dict[str, Any]] = [{}, {"seed": 2}]
    options[lacking]["without"] = ("layers.1.mlp",)
    found = match(sources(tmp_path, *options))
    assert len(found.problems) == 1
    for part in (f"model-{lacking} lacks", "model.layers.1.mlp.down_proj.weight", "--missing base"):
        assert part in found.problems[0]


def test_a_missing_tensor_can_come_from_the_base(tmp_path: Path) -> None:
    options = {"seed": 2, "without": ("layers.1.mlp.up",), "extra": {"only.here": torch.ones(2)}}
    found = match(sources(tmp_path, {}, options), missing="base")
    assert found.problems == []
    jobs = {job.name: job for job in found.jobs}
    assert jobs["model.layers.1.mlp.up_proj.weight"].sources == (0,)
    assert "only.here" not in jobs
    assert any("only.here" in note for note in found.notes)


def test_different_vocabularies_are_told(tmp_path: Path) -> None:
    found = match(sources(tmp_path, {"vocab_size": 96}, {"vocab_size": 97}))
    (problem,) = found.problems
    assert problem.startswith("model.embed_tokens.weight, lm_head.weight have different shapes")
    assert "model-0 [96, 32], model-1 [97, 32]" in problem
    assert "the vocabularies have different sizes; merge by token" in problem
    assert isinstance(problem, VocabularyProblem)


def test_different_inner_shapes_are_named_once_with_both_values(tmp_path: Path) -> None:
    found = match(sources(tmp_path, {}, {"intermediate_size": 80}))
    down, others = found.problems
    assert not any(isinstance(problem, VocabularyProblem) for problem in found.problems)
    assert "layers.0.mlp.down_proj.weight, model.layers.1.mlp.down_proj.weight have" in down
    assert "model-0 [32, 64], model-1 [32, 80]" in down
    assert "gate_proj.weight" in others and "up_proj.weight" in others
    assert "model-0 [64, 32], model-1 [80, 32]" in others
    assert not any(job.name.startswith("model.layers.0.mlp") for job in found.jobs)


def test_a_tied_head_is_its_embeddings(tmp_path: Path) -> None:
    found = match(sources(tmp_path, {"tied": True}, {"seed": 2}))
    head = next(job for job in found.jobs if job.name == "lm_head.weight")
    assert [info.name for info in head.inputs] == ["model.embed_tokens.weight", "lm_head.weight"]
    assert any("model-0 ties its output head" in note for note in found.notes)


def test_no_head_anywhere_stays_no_head(tmp_path: Path) -> None:
    found = match(sources(tmp_path, {"tied": True}, {"tied": True, "seed": 2}))
    assert not any("lm_head" in job.name for job in found.jobs)
    assert (found.problems, found.notes) == ([], [])


@pytest.mark.parametrize("arch", ["mistral", "qwen2", "mixtral", "gemma", "gpt_neox"])
def test_every_architecture_is_mixed_whole(tmp_path: Path, arch: str) -> None:
    opened = sources(tmp_path, {"arch": arch}, {"arch": arch, "seed": 2})
    found = match(opened)
    assert found.problems == []
    assert {job.name for job in found.jobs} == set(opened[0].tensors)
    assert set(found.layout.layers.tolist()) == {-1, 0, 1}


def test_constants_of_a_single_source_are_copied_not_mixed(tmp_path: Path) -> None:
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.rand(4),
        "model.position_ids": torch.arange(8),
    }
    found = match(sources(tmp_path, {"extra": extra}), dtype="BF16")
    assert not set(extra) & set(found.layout.names)
    assert {job.dtype for job in found.jobs if job.name in extra} == {"F32", "I64"}


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64"])
def test_a_piece_is_as_many_whole_grains_as_fit_its_bytes(count: int, dtype: str) -> None:
    info = TensorInfo("t", dtype, (1 << 30,), Path("file"), 0, ITEMSIZE[dtype] << 30)
    job = TensorJob("t", (1 << 30,), "BF16", (info,) * count, tuple(range(count)))
    grain = 1024 * count * ITEMSIZE[dtype]
    assert job.piece % 1024 == 0
    assert PIECE_BYTES - grain < job.piece // 1024 * grain <= PIECE_BYTES


def test_a_piece_of_very_many_sources_is_one_grain() -> None:
    info = TensorInfo("t", "F64", (4096,), Path("file"), 0, 8 * 4096)
    assert TensorJob("t", (4096,), "F32", (info,) * 4096, tuple(range(4096))).piece == 1024
