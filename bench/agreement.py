"""Do two merged models agree? A fast answer that is another answer is not worth timing.

    python -m bench.agreement FOLDER FOLDER

A program of its own, so that the measuring process stays small. Prints JSON: the number of tensors,
the largest relative difference ‖ours − theirs‖ / ‖theirs‖ and the tensor that has it.
"""

import json
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.shapes import BYTES

CHUNK = 4 << 20  # elements compared at a time


@dataclass(frozen=True)
class Place:
    """Where a bfloat16 tensor lies in its file."""

    file: Path
    offset: int
    shape: tuple[int, ...]


def places(folder: Path) -> dict[str, Place]:
    """All tensors of a model by name. ValueError for anything but bfloat16."""
    found: dict[str, Place] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            if entry["dtype"] != "BF16":
                raise ValueError(f"{path}: {name} is {entry['dtype']}, expected BF16")
            start = 8 + length + entry["data_offsets"][0]
            found[name] = Place(path, start, tuple(entry["shape"]))
    return found


def values(place: Place, start: int, stop: int) -> NDArray[np.float32]:
    """Elements [start, stop) of a tensor."""
    bits = np.fromfile(
        place.file, np.uint16, stop - start, offset=place.offset + start * BYTES
    ).astype(np.uint32)
    return (bits << np.uint32(16)).view(np.float32)


def difference(ours: Place, theirs: Place) -> float:
    """‖ours − theirs‖ / ‖theirs‖; NaN where either holds a NaN."""
    above = below = 0.0
    total = prod(theirs.shape)
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        x, y = values(ours, start, stop), values(theirs, start, stop)
        above += float(np.square(x - y).sum(dtype=np.float64))
        below += float(np.square(y).sum(dtype=np.float64))
    return float(np.sqrt(above / below)) if below else float(above > 0)


def compare(ours: Path, theirs: Path) -> dict[str, object]:
    """ValueError if the names or shapes of the tensors differ."""
    mine, other = places(ours), places(theirs)
    unlike = {n for n in mine.keys() | other.keys() if n not in mine or n not in other}
    unlike |= {n for n in mine.keys() & other.keys() if mine[n].shape != other[n].shape}
    if unlike or not mine:
        raise ValueError(f"{ours} and {theirs} differ in tensors: {sorted(unlike)[:5]}")
    by_name = {name: difference(mine[name], other[name]) for name in mine}
    worst = max(by_name, key=lambda name: (by_name[name] != by_name[name], by_name[name]))
    return {"tensors": len(by_name), "difference": by_name[worst], "tensor": worst}


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]))))
