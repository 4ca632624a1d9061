"""Reads a checkpoint into vLLM, at the start and when weights are changed in place.

vLLM itself does not notice a missing tensor when it reloads: a third of a fused layer then is
memory that nobody wrote. Here the whole set of names is known before the first tensor is given.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from vllm.config import ModelConfig
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from studio.weights import Checkpoint

log = logging.getLogger("vllm.studio")
Named = tuple[str, torch.Tensor]


class StudioLoader(BaseModelLoader):
    """`--load-format studio`: every tensor of the folder's index, in the order of the layers."""

    def download_model(self, model_config: ModelConfig) -> None:
        """Nothing: the studio has the files on this machine before it starts an engine."""

    def load_weights(self, model: torch.nn.Module, model_config: ModelConfig) -> None:
        """Fill a fresh model; a parameter that gets no tensor is an error."""
        loaded = cast(Any, model).load_weights(self.get_all_weights(model_config, model))
        missing = {name for name, _ in model.named_parameters()} - (loaded or set())
        if loaded is not None and model_config.quantization is None and missing:
            raise ValueError(f"the checkpoint has no weights for {sorted(missing)[:5]}")

    def get_all_weights(self, model_config: ModelConfig, model: torch.nn.Module) -> Iterator[Named]:
        """Every tensor of the checkpoint by name; vLLM takes from each what its rank holds."""
        yield from told(tensors_of(Path(model_config.model)))


def tensors_of(folder: Path) -> tuple[int, Iterator[Named]]:
    """How many tensors a model has, and each of them, mapped from its file and never reused.

    This is where weights come from: a model that is mixed while it is loaded gives them here.
    """
    checkpoint = Checkpoint.open(folder, folder.name)
    names = sorted(checkpoint.tensors, key=_layer_order)
    return len(names), ((name, checkpoint.load(name)) for name in names)


def _layer_order(name: str) -> tuple[int, str]:
    """Layer by layer, so that vLLM holds one unfinished layer at a time."""
    number = next((int(part) for part in name.split(".") if part.isdecimal()), -1)
    return number, name


def told(tensors: tuple[int, Iterator[Named]]) -> Iterator[Named]:
    """The tensors, with a line in the log now and then; all of them, or an error."""
    total, source = tensors
    speaks = get_tensor_model_parallel_rank() == 0
    count = 0
    for count, (name, tensor) in enumerate(source, start=1):
        if speaks and (count == total or count % max(total // 20, 1) == 0):
            log.info("studio: weights %d of %d", count, total)
        yield name, tensor
    if count != total:
        raise ValueError(f"{count} of {total} tensors were read")
