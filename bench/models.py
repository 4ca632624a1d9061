"""Makes the models to merge; a program of its own, so that the measuring process stays small.

    python -m bench.models HIDDEN INTER LAYERS HEADS KV_HEADS VOCAB FOLDER [FOLDER …]

Each folder gets config.json and model.safetensors. All models are fine-tunes of one base: its
weights are normal with deviation 0.02, each model adds noise of its own, and two models differ by
about a tenth of their norm, an angle at which SLERP is not yet linear interpolation. No value is
subnormal: arithmetic on those is slow and says nothing about real weights.
"""

import json
import sys
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bench.shapes import BYTES, Shape

BLOCK = 16 << 20  # elements of noise made per model; tensors take turns in where they begin in it
DEVIATION = 0.02
OWN_SHARE = 0.07  # √2 × 0.07 ≈ a tenth between two models
SEED = 20231104


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16 values, ties to even; values are finite."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> 16).astype(
        np.uint16
    )


def header(tensors: list[tuple[str, tuple[int, ...]]]) -> bytes:
    """A safetensors header as its library writes it: padded to 8 bytes, data not page-aligned."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors:
        start, end = end, end + prod(shape) * BYTES
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def pieces(block: memoryview, start: int, nbytes: int) -> Iterator[memoryview]:
    """`nbytes` of the endless repetition of a block, from byte `start` on, without a copy."""
    while nbytes:
        piece = block[start : start + nbytes]
        yield piece
        start, nbytes = 0, nbytes - len(piece)


def write_weights(file: BinaryIO, shape: Shape, noise: NDArray[np.float32]) -> None:
    """Streams one model: matrices are the noise, norms are 1 + noise."""
    matrices = bfloat16(noise).data.cast("B")
    norms = bfloat16(noise[: 1 << 16] + np.float32(1)).data.cast("B")
    file.write(header(shape.tensors()))
    for name, size in shape.tensors():
        block = norms if len(size) == 1 else matrices
        # the same place in every model, so that equal names are near each other
        start = zlib.crc32(name.encode()) % (len(block) // BYTES) * BYTES
        for piece in pieces(block, start, prod(size) * BYTES):
            file.write(piece)


def make_models(shape: Shape, folders: list[Path]) -> None:
    """One model per folder; folders are made, files in them overwritten."""
    rng = np.random.default_rng(SEED)
    elements = min(BLOCK, max(1 << 16, max(prod(size) for _, size in shape.tensors())))
    base = rng.standard_normal(elements, dtype=np.float32)
    for folder in folders:
        own = rng.standard_normal(elements, dtype=np.float32)
        noise = (base + np.float32(OWN_SHARE) * own) * np.float32(DEVIATION)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(shape.config(), indent=2) + "\n")
        with (folder / "model.safetensors").open("wb", buffering=0) as file:
            write_weights(file, shape, noise)


if __name__ == "__main__":
    sizes, paths = sys.argv[1:7], sys.argv[7:]
    make_models(Shape(*map(int, sizes)), [Path(path) for path in paths])
