"""The general plugin: vLLM calls `register` once in every one of its processes."""

from typing import Any

import torch
import vllm.model_executor.layers.utils as layers
from vllm.model_executor.model_loader import register_model_loader
from vllm.platforms import current_platform

from studio.serve.plugin.loader import StudioLoader

LOAD_FORMAT = "studio"


def register() -> None:
    """Add the loader; on the CPU, keep weights where they can be read."""
    register_model_loader(LOAD_FORMAT)(StudioLoader)
    if current_platform.is_cpu():
        _keep_weights_readable()


def _keep_weights_readable() -> None:
    """Let linear layers use their weights as they are.

    The CPU build packs them into oneDNN's own memory and drops the originals: a digest of the
    parameters would then say nothing about what answers.
    """
    pack = layers.dispatch_cpu_unquantized_gemm

    def plain(layer: Any, remove_weight: bool) -> None:
        if layer.weight.ndim == 2 and not layer.weight.is_meta:
            layer.cpu_linear = torch.nn.functional.linear
        else:
            pack(layer, remove_weight)

    layers.dispatch_cpu_unquantized_gemm = plain
