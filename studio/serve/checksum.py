"""A checksum of weights that does not depend on how they are split over processes.

The sum, modulo 2^64, of a mixing function of every word of 8 bytes (of every element, where rows do
not split into such words). Zero adds nothing, so padding does not count; splitting, joining and
reordering leave it as it is. Two equal sums say that the same numbers are there; in which order
they lie is for a digest of the bytes to tell.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from studio.weights import Checkpoint

MODULUS = 2**64
_FIRST, _SECOND = -7046029254386353131, -4658895280553007687  # odd constants of splitmix64
_CHUNKS = {"cpu": 1 << 15}  # stays within a core's cache: seven times as fast as millions
_CHUNK = 1 << 22

MOST_RANKS = 32

Held = Mapping[str, tuple[int, int]]  # name → (number of elements, their sum)


def has_whole_words(shapes: Iterable[Sequence[int]], ranks: int) -> bool:
    """Whether rows of these shapes, split over the ranks, are whole words of 8 bytes.

    The same for any number of ranks up to 32: so are the sums, and the digest made of them.
    """
    return ranks <= MOST_RANKS and all(s[-1] % (4 * MOST_RANKS) == 0 for s in shapes if s)


def checksum(tensor: "torch.Tensor", *, words: bool = False) -> tuple[int, int]:
    """(Number of elements, sum) of a tensor of 8, 16 or 32 bit elements, on its own device.

    `words`: take 8 bytes at a time; sums made with and without it cannot be compared.
    """
    import torch

    bits = {2: torch.int16, 4: torch.int32, 1: torch.int8}[tensor.itemsize]
    total, chunk = 0, _CHUNKS.get(tensor.device.type, _CHUNK)
    flat = tensor.detach().contiguous().flatten().view(torch.int64 if words else bits)
    for start in range(0, flat.numel(), chunk):
        mixed = flat[start : start + chunk].to(torch.int64) * _FIRST
        mixed = (mixed ^ (mixed >> 29)) * _SECOND
        total += int((mixed ^ (mixed >> 32)).sum())
    return tensor.numel(), total % MODULUS


def sums_of_files(
    checkpoint: "Checkpoint",
    dtypes: Mapping[str, "torch.dtype"],
    device: "torch.device | str",
    *,
    words: bool,
) -> Held:
    """The checksums of these tensors of the checkpoint, each after a cast to its dtype."""
    return {
        name: checksum(checkpoint.load(name).to(device=device, dtype=dtype), words=words)
        for name, dtype in dtypes.items()
    }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the ranks of an engine hold against what the model's files hold.

    `wrong`: the parameters that differ. `checked` of the `total` parameters could be compared.
    `digest`: of the whole model's weights in the engine's dtype, by the files' names: the same
    however they are split and fused; empty unless every parameter was compared and agrees.
    """

    wrong: tuple[str, ...]
    checked: int
    total: int
    digest: str

    @property
    def verified(self) -> str:
        """How much was compared."""
        return f"{self.checked} of {self.total} parameters"


def compare(ranks: Sequence[Held], files: Held, fused: Mapping[str, Sequence[str]]) -> Comparison:
    """Compare the ranks' checksums with the files'.

    `fused` names the parts that an engine keeps in one parameter, {"qkv_proj": ["q_proj", …]}. A
    parameter may be split over the ranks, repeated on several, or padded with zeros; what cannot
    be told apart from the sizes is left unchecked.
    """
    names = sorted({name for held in ranks for name in held})
    wrong: list[str] = []
    agreed: dict[str, tuple[int, int]] = {}
    checked = 0
    for name in names:
        size, total = _added([held[name] for held in ranks if name in held])
        parts = {part: files[part] for part in _parts(name, fused) if part in files}
        possible = _possible(list(parts.values()), size)
        if not possible:
            continue
        checked += 1
        if total not in possible:
            wrong.append(name)
        agreed |= parts
    is_whole = checked == len(names) and not wrong
    return Comparison(tuple(wrong), checked, len(names), _digest(agreed) if is_whole else "")


def _digest(sums: Held) -> str:
    lines = (f"{name} {size} {total}\n" for name, (size, total) in sorted(sums.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def _parts(name: str, fused: Mapping[str, Sequence[str]]) -> list[str]:
    for whole, parts in fused.items():
        if f".{whole}." in name:
            return [name.replace(f".{whole}.", f".{part}.") for part in parts]
    return [name]


def _added(parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(size for size, _ in parts), sum(total for _, total in parts) % MODULUS


def _possible(parts: Sequence[tuple[int, int]], size: int) -> set[int]:
    """The sums that a parameter of `size` elements in all may have; empty if it fits nothing."""
    if not parts:
        return set()
    whole, total = _added(parts)
    if size % whole == 0:
        return {total * (size // whole) % MODULUS}
    first, rest = parts[0], _added(parts[1:])
    if len(parts) == 3 and (size - first[0]) % rest[0] == 0:  # keys and values repeated
        return {(first[1] + rest[1] * ((size - first[0]) // rest[0])) % MODULUS}
    return {total} if whole < size < 2 * whole else set()
