"""The command line and the environment of engines, line by line."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.vllm_command import (
    ENTRY,
    ROOT,
    Machine,
    Place,
    embedded_command,
    environment,
    vllm_command,
)

PLACE = Place(
    Path("/data/e"), Path("/run/e"), Path("/models/m"), "f00d", "k" * 43, socket=Path("/run/e/door")
)
CPU = Machine(has_gpu=False, cores=2)
GPU = Machine(has_gpu=True, cores=64, can_sleep=True)
BASE = [
    sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry",
    "--model", "/models/m",
    "--served-model-name", "model",
    "--uds", "/run/e/door",
    "--tensor-parallel-size", "2",
    "--pipeline-parallel-size", "1",
    "--dtype", "float32",
    "--seed", "0",
    "--generation-config", "vllm",
    "--middleware", "studio.serve.gate.Gate",
    "--disable-fastapi-docs",
    "--disable-uvicorn-access-log",
    "--fingerprint-mode", "none",
]  # fmt: skip
RELOADS = [
    "--load-format", "studio",
    "--worker-extension-cls", "studio.serve.plugin.extension.Extension",
]  # fmt: skip


def spec(**values: Any) -> ModelSpec:
    return ModelSpec(**{"model": "m", "tensor_parallel_size": 2, "dtype": "float32"} | values)


def test_vllm_command_on_a_cpu() -> None:
    assert vllm_command(spec(), PLACE, CPU, reloads=True) == [*BASE, *RELOADS, "--enforce-eager"]


def test_vllm_command_on_gpus() -> None:
    wanted = spec(kv_cache="fp8", max_model_len=4096, kv_cache_gib=2.5, gpu_memory_utilization=0.9)
    assert vllm_command(wanted, PLACE, GPU, reloads=True) == [
        *BASE, *RELOADS,
        "--kv-cache-dtype", "fp8",
        "--max-model-len", "4096",
        "--gpu-memory-utilization", "0.9",
        "--kv-cache-memory-bytes", "2684354560",
        "--enable-sleep-mode",
    ]  # fmt: skip


def test_vllm_command_with_quantisation_leaves_the_loader_to_vllm() -> None:
    command = vllm_command(spec(quantisation="fp8_per_tensor"), PLACE, GPU, reloads=False)
    assert command[len(BASE) :] == [
        "--quantization", "fp8_per_tensor", "--gpu-memory-utilization", "0.92",
        "--enable-sleep-mode",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "machine", "eager"),
    [(None, CPU, True), (None, GPU, False), (True, GPU, True), (False, CPU, False)],
)
def test_eager_is_for_cpus_unless_said(asked: bool | None, machine: Machine, eager: bool) -> None:
    command = vllm_command(spec(enforce_eager=asked), PLACE, machine, reloads=True)
    assert ("--enforce-eager" in command) == eager


def test_an_open_port_is_on_this_machine_only() -> None:
    command = vllm_command(spec(), replace(PLACE, socket=None, port=4242), CPU, reloads=True)
    at = command.index("--host")
    assert command[at : at + 4] == ["--host", "127.0.0.1", "--port", "4242"]
    assert "--uds" not in command


def test_no_command_holds_the_key() -> None:
    assert PLACE.key not in " ".join(vllm_command(spec(), PLACE, GPU, reloads=True))
    assert PLACE.key not in repr(PLACE)


def test_embedded_command() -> None:
    wanted = spec(engine="embedded", tensor_parallel_size=1, max_model_len=256)
    assert embedded_command(wanted, PLACE) == [
        sys.executable, "-m", "studio.serve.embedded",
        "--model", "/models/m",
        "--served-model-name", "model",
        "--uds", "/run/e/door",
        "--dtype", "float32",
        "--max-model-len", "256",
    ]  # fmt: skip


def test_environment_of_vllm_on_a_cpu() -> None:
    base = {
        "PATH": "/bin",
        "STUDIO_OWNER_TOKEN": "s" * 16,
        "ENDPOINT_KEY": "k",
        "PYTHONPATH": "/own",
    }
    assert environment(spec(kv_cache_gib=3), PLACE, CPU, base) == {
        "PATH": "/bin",
        "PYTHONPATH": f"{ROOT}:{ENTRY}:/own",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "ENGINE_KEY": PLACE.key,
        "ENGINE_MODEL": "f00d",
        "VLLM_PLUGINS": "studio_engine,studio_control",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_RPC_BASE_PATH": "/run/e",
        "VLLM_CPU_KVCACHE_SPACE": "3",
        "VLLM_CPU_OMP_THREADS_BIND": "0|1",
    }


@pytest.mark.parametrize(
    ("cores", "ranks", "bound"),
    [(8, 2, "0-3|4-7"), (5, 2, "0-2|3-4"), (3, 3, "0|1|2"), (2, 4, "nobind"), (4, 1, "0-3")],
)
def test_cores_are_shared_out_to_the_ranks(cores: int, ranks: int, bound: str) -> None:
    machine = Machine(has_gpu=False, cores=cores)
    found = environment(spec(tensor_parallel_size=ranks), PLACE, machine, {})
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == bound


def test_environment_on_gpus_names_them_and_nothing_of_cpus() -> None:
    found = environment(spec(gpus=(2, 3)), PLACE, GPU, {})
    assert found["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert not [name for name in found if name.startswith("VLLM_CPU")]
    assert "CUDA_VISIBLE_DEVICES" not in environment(spec(), PLACE, GPU, {})


def test_environment_of_an_embedded_engine_knows_nothing_of_vllm() -> None:
    wanted = spec(engine="embedded", tensor_parallel_size=1)
    assert not [name for name in environment(wanted, PLACE, CPU, {}) if name.startswith("VLLM")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": ""}, "the model is missing"),
        ({"engine": "llama"}, 'no engine "llama"'),
        ({"engine": "endpoint"}, "an endpoint needs a URL"),
        ({"url": "http://x"}, "a URL is for the engine endpoint only"),
        ({"tensor_parallel_size": 0}, "whole numbers from 1"),
        ({"engine": "embedded"}, "the embedded engine runs in one process"),
        ({"gpus": (0, 1, 2)}, "3 GPUs are given for 2 ranks"),
        ({"dtype": "int8"}, 'dtype is "int8"'),
        ({"max_model_len": 0}, "max_model_len is 0"),
        ({"gpu_memory_utilization": 1.2}, "gpu_memory_utilization is 1.2"),
        ({"kv_cache_gib": 0}, "kv_cache_gib is 0"),
        ({"kv_cache": "int4"}, 'the cache is to hold "int4"; use auto or fp8'),
        (
            {"engine": "embedded", "tensor_parallel_size": 1, "kv_cache": "fp8"},
            "the embedded engine does not quantise",
        ),
        ({"idle_minutes": -1}, "idle_minutes is -1"),
    ],
)
def test_spec_refuses_what_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        spec(**values)


def test_spec_goes_through_its_data_unchanged() -> None:
    wanted = spec(gpus=(1, 2), key="secret", label="Mine")
    assert ModelSpec.from_data(wanted.as_data()) == wanted
    assert "secret" not in repr(wanted)
    with pytest.raises(StudioError, match='did you mean "gpus"'):
        ModelSpec.from_data({"model": "m", "gpu": 1})


def test_spec_is_called_by_its_label_or_the_end_of_its_model() -> None:
    assert spec(model="/a/b/Xwin-LM-70B-V0.1/").name == "Xwin-LM-70B-V0.1"
    assert spec(model="owner/name").name == "name"
    assert spec(label="the merge").name == "the merge"
