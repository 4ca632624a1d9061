"""What this machine offers to an engine: GPUs, cores, vLLM, and instructions."""

import importlib.util
import os
import sys
from pathlib import Path

from studio.serve.processes.spec import EngineKind
from studio.serve.processes.vllm_command import Machine

NVIDIA = Path("/dev/nvidiactl")


def this_machine() -> Machine:
    """The machine the studio runs on. vLLM can put weights to sleep on NVIDIA GPUs only."""
    has_gpu = NVIDIA.exists() and not _is_cpu_build()
    cores = len(os.sched_getaffinity(0))
    return Machine(has_gpu, cores, has_gpu or safe_bfloat16(cpu_flags()), can_sleep=has_gpu)


def has_vllm() -> bool:
    """Whether vLLM is installed; it is not imported."""
    return importlib.util.find_spec("vllm") is not None


def _is_cpu_build() -> bool:
    spec = importlib.util.find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return version is None or "+cpu" in version.read_text()


def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets, as Linux names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def safe_bfloat16(flags: frozenset[str]) -> bool:
    """Whether vLLM's CPU build can be trusted with bfloat16 on a processor with these flags.

    Its bfloat16 kernels were seen to die of an illegal instruction on a processor that has
    avx512_bf16 but hides its AMX tiles (a virtual machine); float32 and float16 answer there.
    Without avx512_bf16 other kernels are taken.
    """
    return "avx512_bf16" not in flags or "amx_bf16" in flags


def default_engine() -> EngineKind:
    """What to start a model with: vLLM where it is installed, the embedded engine elsewhere."""
    return "vllm" if has_vllm() and sys.platform == "linux" else "embedded"
