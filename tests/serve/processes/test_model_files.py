"""What is known of a model and a machine before anything is started."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.processes import machine
from studio.serve.processes.machine import safe_bfloat16, this_machine
from studio.serve.processes.meter import counters
from studio.serve.processes.model_files import (
    ModelFiles,
    check,
    check_exchange,
    identity_of,
    model_files,
    reloads_in_place,
    resolved_dtype,
)
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.vllm_command import Machine
from studio.serve.special_tokens import SpecialTokens
from studio.weights import Checkpoint
from tests.serve.engines import DEMO

STORY = DEMO / "story"


def edited(folder: Path, **changes: Any) -> Path:
    copy = folder / "model"
    shutil.copytree(STORY, copy)
    config = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_files_of_a_demo_model() -> None:
    found = model_files(str(STORY))
    assert found == ModelFiles(
        path=STORY.resolve(),
        fingerprint=Checkpoint.open(STORY, "story").fingerprint(),
        reloads=True,
        quantisation=None,
        dtype="bfloat16",
        ends=(2,),
        tokens=SpecialTokens("<s>", {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}),
    )


def test_quantised_files_stay_as_they_were_started(tmp_path: Path) -> None:
    model = str(edited(tmp_path, quantization_config={"quant_method": "gptq"}))
    found = model_files(model)
    assert (found.quantisation, found.reloads) == ("gptq", False)
    with pytest.raises(StudioError, match="quantised .gptq.; the embedded engine cannot run it"):
        check(ModelSpec(model=model, engine="embedded"))
    with pytest.raises(StudioError, match="quantised already .gptq.; start it without fp8"):
        check(ModelSpec(model=model, quantisation="fp8_per_tensor"))
    with pytest.raises(StudioError, match="quantised files cannot be loaded in place"):
        check_exchange(ModelSpec(model=model))
    assert not reloads_in_place(ModelSpec(model="m"), found)
    assert identity_of(ModelSpec(model="m"), found).quantisation == "gptq"
    cached = ModelSpec(model="m", kv_cache="fp8")
    assert identity_of(cached, found).quantisation == "gptq, fp8 cache"
    assert identity_of(cached, replace(found, quantisation=None)).quantisation == "fp8 cache"


def test_weights_packed_as_they_come_are_not_replaced() -> None:
    files = model_files(str(STORY))
    assert reloads_in_place(ModelSpec(model="m"), files)
    assert not reloads_in_place(ModelSpec(model="m", quantisation="fp8_per_tensor"), files)


def test_a_quantisation_that_vllm_does_not_know_is_refused() -> None:
    with pytest.raises(StudioError, match='"fp7" is not an on-line quantisation of vLLM'):
        check(ModelSpec(model=str(STORY), quantisation="fp7"))


def test_heads_must_divide() -> None:
    for size in (1, 2, 4, 8):
        check(ModelSpec(model=str(STORY), tensor_parallel_size=size))
    with pytest.raises(StudioError, match="8 attention heads cannot be shared evenly by 6 ranks"):
        check(ModelSpec(model=str(STORY), tensor_parallel_size=6))


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, True),
        ({"rope_scaling": None, "rope_parameters": {"rope_type": "default"}}, True),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, False),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, False),
        ({"model_max_length": 512}, False),
    ],
)
def test_more_tokens_than_the_model_was_made_for_are_refused(
    tmp_path: Path, changes: dict[str, Any], refused: bool
) -> None:
    model = str(edited(tmp_path, max_position_embeddings=256, **changes))
    check(ModelSpec(model=model, max_model_len=256))
    if refused:
        with pytest.raises(StudioError, match="was made for at most 256 tokens"):
            check(ModelSpec(model=model, max_model_len=257))
    else:
        check(ModelSpec(model=model, max_model_len=257))


def test_a_model_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    copy = edited(tmp_path)
    (copy / "model.safetensors").unlink()
    with pytest.raises(StudioError, match="no weights"):
        model_files(str(copy))


GPU = Machine(has_gpu=True, cores=8)
CPU = Machine(has_gpu=False, cores=8)
OLD_CPU = Machine(has_gpu=False, cores=8, safe_bfloat16=False)


@pytest.mark.parametrize(
    ("engine", "asked", "held", "machine", "expected"),
    [
        ("vllm", "auto", "float16", GPU, "float16"),
        ("vllm", "auto", "bfloat16", GPU, "bfloat16"),
        ("vllm", "auto", "float32", GPU, "bfloat16"),
        ("vllm", "float32", "float16", GPU, "float32"),
        ("vllm", "auto", "bfloat16", CPU, "bfloat16"),
        ("vllm", "auto", "bfloat16", OLD_CPU, "float32"),
        ("vllm", "bfloat16", "bfloat16", OLD_CPU, "bfloat16"),
        ("vllm", "auto", None, CPU, "float32"),
        ("embedded", "auto", "bfloat16", CPU, "float32"),
    ],
)
def test_dtype_is_decided_before_the_start(
    engine: Any, asked: str, held: str | None, machine: Machine, expected: str
) -> None:
    files = ModelFiles(path=Path("/m"), fingerprint="f", reloads=True, dtype=held)
    spec = ModelSpec(model="m", engine=engine, dtype=asked)
    assert resolved_dtype(spec, files, machine) == expected


@pytest.mark.parametrize(
    ("flags", "safe"),
    [
        ({"avx2"}, True),
        ({"avx512f", "avx512_bf16"}, False),
        ({"avx512f", "avx512_bf16", "amx_tile", "amx_bf16"}, True),
    ],
)
def test_bfloat16_needs_all_of_its_instructions(flags: set[str], safe: bool) -> None:
    assert safe_bfloat16(frozenset(flags)) == safe


def test_where_vllm_is_missing_the_embedded_engine_is_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for is_there in (True, False):
        monkeypatch.setattr(machine, "has_vllm", lambda is_there=is_there: is_there)
        found.append(machine.default_engine())
    assert found == ["vllm", "embedded"]


def test_this_machine_has_cores() -> None:
    assert this_machine().cores >= 1


def test_counters_add_up_over_labels() -> None:
    text = (
        "# HELP vllm:prompt_tokens_total of prompts\n"
        'vllm:prompt_tokens_total{engine="0",model_name="model"} 12.0\n'
        'vllm:prompt_tokens_total{engine="1",model_name="model"} 3.0\n'
        'vllm:kv_cache_usage_perc{engine="0"} 2.5e-05\n'
        "python_info 1.0\nvllm:num_requests_running 2\n"
    )
    assert counters(text) == {
        "vllm:prompt_tokens_total": 15.0,
        "vllm:kv_cache_usage_perc": 2.5e-05,
        "vllm:num_requests_running": 2.0,
    }
