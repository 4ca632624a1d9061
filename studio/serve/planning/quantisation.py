"""How weights are packed: by the checkpoint itself, or by vLLM while it loads them.

Two models that are packed differently are two different things to compare: part of what is heard
is the packing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import StudioError, nearest

# On-line schemes of vLLM: bits of a weight, and the width of a block that has its own scale (0:
# one scale for a row or the whole matrix, too few to count).
ONLINE = {
    "fp8_per_tensor": (8, 0),
    "fp8_per_channel": (8, 0),
    "fp8_per_block": (8, 128),
    "mxfp8": (8, 32),
    "mxfp4": (4, 32),
}
NEEDS = {"mxfp8": 10.0, "mxfp4": 10.0}  # compute capability; others from 7.5
LEAST_CAPABILITY = 7.5
OLD_NAMES = {"fp8": "fp8_per_tensor"}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A packing of the layers' matrices; embeddings, lm_head and norms stay as they are.

    `bits` of a weight, 0 for none. `group`: so many neighbours along the input share a scale, 0
    for one scale a row. `online`: vLLM packs while loading, so the same files serve both ways.
    """

    name: str = ""
    bits: int = 0
    group: int = 0
    online: bool = False

    def bytes_of(self, elements: float, itemsize: int) -> float:
        """Bytes of a matrix of `elements`, `itemsize` bytes each if unpacked.

        With groups, each has a scale of two bytes and, below 8 bits, a zero point of `bits`.
        """
        if not self.bits:
            return elements * itemsize
        packed = elements * self.bits / 8
        if not self.group:
            return packed
        scale = 2 + (self.bits / 8 if self.bits < 8 else 0)
        return packed + elements / self.group * scale

    def __str__(self) -> str:
        if not self.bits:
            return "none"
        group = f" in groups of {self.group}" if self.group and not self.online else ""
        bits = "" if self.online else f", {self.bits} bits"
        return f"{self.name}{bits}{group}"


def online(name: str) -> Quantisation:
    """The on-line quantisation of this name; "none" for none."""
    if name in ("", "none"):
        return Quantisation()
    name = OLD_NAMES.get(name, name)
    if name not in ONLINE:
        raise StudioError(
            f'"{name}" is not an on-line quantisation of vLLM{nearest(name, list(ONLINE))}; '
            f"use none, fp8, {', '.join(ONLINE)}"
        )
    bits, group = ONLINE[name]
    return Quantisation(name, bits, group, online=True)


def checkpoint_quantisation(config: Mapping[str, Any], where: str) -> Quantisation:
    """The packing that a config's `quantization_config` states; none where there is none."""
    found = config.get("quantization_config")
    if not found:
        return Quantisation()
    method = found.get("quant_method") if isinstance(found, Mapping) else None
    if method in ("gptq", "awq"):
        bits = found.get("bits", found.get("w_bit"))
        group = found.get("group_size", found.get("q_group_size"))
        if type(bits) is int and 1 <= bits <= 8 and type(group) is int:
            return Quantisation(str(method), bits, max(group, 0))
    elif method == "compressed-tensors":
        weights = _first_weights(found.get("config_groups"))
        if type(bits := weights.get("num_bits")) is int:
            return Quantisation(str(method), bits, int(weights.get("group_size") or 0))
    elif method == "fp8":
        block = found.get("weight_block_size")
        return Quantisation("fp8", 8, int(block[1]) if isinstance(block, list) else 0)
    raise StudioError(
        f"{where}: quantization_config with quant_method {method!r} cannot be planned; the planner "
        "knows gptq, awq, compressed-tensors and fp8"
    )


def _first_weights(groups: object) -> Mapping[str, Any]:
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    return weights if isinstance(weights, Mapping) else {}


def unlike(held: Mapping[str, tuple[str, str]]) -> str:
    """A warning if models are not held alike; empty if they are.

    `held`: for each model its dtype and its quantisation ("none" where there is none).
    """
    ways = sorted(set(held.values()))
    if len(ways) < 2:
        return ""
    each = "; ".join(
        f"{', '.join(model for model in held if held[model] == way)}: {_way(way)}" for way in ways
    )
    return (
        f"these models are not held alike ({each}): a comparison would also hear the packing; "
        "use one dtype and one quantisation for all of them"
    )


def _way(way: Sequence[str]) -> str:
    dtype, quantisation = way
    return dtype if quantisation == "none" else f"{dtype}, {quantisation}"
