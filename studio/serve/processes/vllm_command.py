"""The command and the environment of a vLLM server: pure, and tested line by line."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import studio
from studio.serve.gate import KEY_VARIABLE, MODEL_VARIABLE
from studio.serve.processes.spec import ModelSpec

ROOT = Path(studio.__file__).parent.parent
ENTRY = ROOT / "studio" / "serve" / "plugin" / "entry"
SERVED_NAME = "model"  # says nothing: which model it is, the studio knows
SERVER = "vllm.entrypoints.launchers.api_server.entry"
# Of the studio's own environment, what is no business of an engine.
OWNERS_SECRETS = ("STUDIO_OWNER_TOKEN", "ENDPOINT_KEY")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine lives: its folder on this machine, its door, its key.

    `run` is the folder of its sockets: private, and short enough for their names. `model_path` is
    the model's folder, `model_id` what the studio calls its contents. Either `socket` or `port` is
    set.
    """

    folder: Path
    run: Path
    model_path: Path
    model_id: str
    key: str = field(repr=False)
    socket: Path | None = None
    port: int | None = None

    @property
    def door(self) -> list[str]:
        """The arguments that say where to listen."""
        if self.socket is not None:
            return ["--uds", str(self.socket)]
        return ["--host", "127.0.0.1", "--port", str(self.port)]


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides about flags: is this the CPU build, how many cores, is bfloat16 safe."""

    has_gpu: bool
    cores: int
    safe_bfloat16: bool = True
    can_sleep: bool = False


def vllm_command(spec: ModelSpec, place: Place, machine: Machine, *, reloads: bool) -> list[str]:
    """The server for one model. `reloads`: its weights can be changed in place."""
    command = [
        sys.executable, "-m", SERVER,
        "--model", str(place.model_path),
        "--served-model-name", SERVED_NAME,
        *place.door,
        "--tensor-parallel-size", str(spec.tensor_parallel_size),
        "--pipeline-parallel-size", str(spec.pipeline_parallel_size),
        "--dtype", spec.dtype,
        "--seed", "0",
        "--generation-config", "vllm",
        "--middleware", "studio.serve.gate.Gate",
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",
        "--fingerprint-mode", "none",
    ]  # fmt: skip
    if reloads:
        command += ["--load-format", "studio"]
        command += ["--worker-extension-cls", "studio.serve.plugin.extension.Extension"]
    if spec.quantisation is not None:
        command += ["--quantization", spec.quantisation]
    if spec.kv_cache != "auto":
        command += ["--kv-cache-dtype", spec.kv_cache]
    if spec.max_model_len is not None:
        command += ["--max-model-len", str(spec.max_model_len)]
    if spec.enforce_eager or (spec.enforce_eager is None and not machine.has_gpu):
        command += ["--enforce-eager"]
    if machine.has_gpu:
        command += ["--gpu-memory-utilization", str(spec.gpu_memory_utilization)]
        if spec.kv_cache_gib is not None:
            command += ["--kv-cache-memory-bytes", str(int(spec.kv_cache_gib * 2**30))]
    if machine.can_sleep:
        command += ["--enable-sleep-mode"]
    return command


def embedded_command(spec: ModelSpec, place: Place) -> list[str]:
    """The embedded engine for one model."""
    command = [
        sys.executable, "-m", "studio.serve.embedded",
        "--model", str(place.model_path),
        "--served-model-name", SERVED_NAME,
        *place.door,
        "--dtype", spec.dtype,
    ]  # fmt: skip
    if spec.max_model_len is not None:
        command += ["--max-model-len", str(spec.max_model_len)]
    return command


def environment(
    spec: ModelSpec, place: Place, machine: Machine, base: Mapping[str, str]
) -> dict[str, str]:
    """The environment of an engine's processes, from the studio's own one."""
    found = {name: value for name, value in base.items() if name not in OWNERS_SECRETS}
    paths = [str(ROOT), str(ENTRY), base.get("PYTHONPATH", "")]
    found |= {
        "PYTHONPATH": ":".join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        KEY_VARIABLE: place.key,
        MODEL_VARIABLE: place.model_id,
    }
    if spec.engine == "vllm":
        found |= {
            "VLLM_PLUGINS": "studio_engine,studio_control",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_RPC_BASE_PATH": str(place.run),
        }
        if not machine.has_gpu:
            found |= _cpu_environment(spec, machine)
    if spec.gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in spec.gpus)
    return found


def _cpu_environment(spec: ModelSpec, machine: Machine) -> dict[str, str]:
    """Memory and cores: vLLM would share out NUMA nodes, and has one core set for each rank."""
    ranks = spec.tensor_parallel_size * spec.pipeline_parallel_size
    each, left = divmod(machine.cores, ranks)
    found = {"VLLM_CPU_KVCACHE_SPACE": str(max(1, round(spec.kv_cache_gib or 1)))}
    if each == 0:
        return found | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    edges = [rank * each + min(rank, left) for rank in range(ranks + 1)]
    ranges = [
        f"{first}-{last - 1}" if last - first > 1 else str(first)
        for first, last in zip(edges, edges[1:], strict=False)
    ]
    return found | {"VLLM_CPU_OMP_THREADS_BIND": "|".join(ranges)}
