"""Where the tensors of a model lie: in which layer, or before or after the layers."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from studio.errors import StudioError

Integers = NDArray[np.integer[Any]]
MAX_DIGITS = 9  # of a layer number; whatever is longer is a part of a name
BUFFERS = (".inv_freq", ".masked_bias", ".attn.bias", ".attention.bias")
Place = Literal["embeddings", "layer", "norm", "head"]
Group = Literal["attention", "mlp", "norms", "others"]


@dataclass(frozen=True)
class Layout:
    """The tensors of a model, in the order of the model, and the layer of each.

    `layers` is (T,) and holds -1 for the tensors outside the layers.
    """

    names: tuple[str, ...]
    layers: Integers
    num_layers: int

    @classmethod
    def of(cls, names: Sequence[str], num_layers: int) -> "Layout":
        """Sort the names in the order of the model: embeddings, layers, norm, head.

        The layer of a tensor is the first whole number among the parts of its name, if the
        numbers behind the same prefix are exactly 0 … num_layers - 1: so the experts of a
        mixture, which are numbered further right, are not layers. Raises StudioError where no
        prefix counts `num_layers` layers.
        """
        layer_of = _layers(names, num_layers)
        ranks = {"embeddings": 0, "layer": 1, "norm": 2, "head": 3}

        def order(name: str) -> tuple[int, int, str]:
            layer = layer_of.get(name, -1)
            return (ranks[place(name, layer)], layer, name)

        ordered = tuple(sorted(names, key=order))
        layers = np.array([layer_of.get(name, -1) for name in ordered], dtype=np.int64)
        return cls(ordered, layers, num_layers)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """What each tensor is."""
        return tuple(
            place(name, int(layer)) for name, layer in zip(self.names, self.layers, strict=True)
        )

    @cached_property
    def rows(self) -> tuple[tuple[str, ...], Integers]:
        """The R rows of a chart over the layers, and the row of each tensor, (T,)."""
        labels = [
            f"layer {layer}" if layer >= 0 else place
            for layer, place in zip(self.layers, self.places, strict=True)
        ]
        names = tuple(dict.fromkeys(labels))
        numbers = {name: number for number, name in enumerate(names)}
        return names, np.array([numbers[label] for label in labels], dtype=np.int64)

    @cached_property
    def outside(self) -> dict[Place, str]:
        """For each place outside the layers the filter that is for its tensors alone, if any is."""
        found: dict[Place, str] = {}
        for where in ("embeddings", "norm", "head"):
            own = [n for n, p in zip(self.names, self.places, strict=True) if p == where]
            others = [n for n, p in zip(self.names, self.places, strict=True) if p != where]
            for word in _parts(own[0]) if own else ():
                if all(word in n for n in own) and not any(word in n for n in others):
                    found[where] = word
                    break
        return found

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The part of a layer that each tensor belongs to."""
        return tuple(_group(name) for name in self.names)

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Each tensor's name within its layer, "self_attn.q_proj"; experts share theirs."""
        return tuple(_module(name, int(n)) for name, n in zip(self.names, self.layers, strict=True))

    def subset(self, names: Sequence[str]) -> "Layout":
        """The layout of some of the tensors, in the order of this one."""
        wanted = set(names)
        kept = [row for row, name in enumerate(self.names) if name in wanted]
        return Layout(tuple(self.names[row] for row in kept), self.layers[kept], self.num_layers)


def _parts(name: str) -> list[str]:
    """The parts of a tensor's name and whatever stands together, the shortest first."""
    parts = name.split(".")[:-1]
    return [
        ".".join(parts[at : at + count])
        for count in range(1, len(parts) + 1)
        for at in range(len(parts) - count + 1)
    ]


def place(name: str, layer: int) -> Place:
    """What the tensor is, by the words architectures use in its name."""
    if layer >= 0:
        return "layer"
    if is_head(name):
        return "head"
    if any(word in name for word in ("embed", "wte", "wpe")):
        return "embeddings"
    return "norm"


def is_head(name: str) -> bool:
    """Whether the tensor belongs to the output projection, from hidden states to the vocabulary."""
    return name.startswith(("lm_head.", "embed_out.", "output.")) or ".lm_head." in name


def is_buffer(name: str) -> bool:
    """Whether the tensor is a constant that some exporters store beside the weights.

    Constants are not trained, and rounding them to the dtype of the weights would change the model.
    """
    return name.endswith(BUFFERS)


def _group(name: str) -> Group:
    """Norms first: "post_attention_layernorm" is none of the attention's matrices."""
    words: tuple[tuple[Group, tuple[str, ...]], ...] = (
        ("norms", ("norm", ".ln_")),
        ("attention", ("attn", "attention")),
        ("mlp", ("mlp", "feed_forward", "moe", "expert", "ffn", "dense_")),
    )
    return next((group for group, parts in words if any(p in name for p in parts)), "others")


def _module(name: str, layer: int) -> str:
    """What follows the number of the layer, without ".weight" or ".bias"."""
    rest = name.partition(f".{layer}.")[2] if layer >= 0 else name
    return re.sub(r"\.\d+(?=\.|$)", ".*", rest.removesuffix(".weight").removesuffix(".bias"))


def _layers(names: Sequence[str], num_layers: int) -> dict[str, int]:
    numbered: dict[str, dict[str, int]] = defaultdict(dict)
    for name in names:
        parts = name.split(".")
        number = next((i for i, part in enumerate(parts) if _is_number(part)), None)
        if number:
            numbered[".".join(parts[:number])][name] = int(parts[number])
    layer_of = {
        name: layer
        for members in numbered.values()
        if len(set(members.values())) == num_layers == max(members.values()) + 1
        for name, layer in members.items()
    }
    if not layer_of:
        found = ", ".join(f"{prefix} {len(set(m.values()))}" for prefix, m in numbered.items())
        raise StudioError(
            f"config.json says {num_layers} layers, but the tensor names count: "
            f"{found or 'none'}; the checkpoint is incomplete or its config is another model's"
        )
    return layer_of


def _is_number(part: str) -> bool:
    return part.isdecimal() and len(part) < MAX_DIGITS
