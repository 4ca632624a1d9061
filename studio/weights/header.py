"""The header of a safetensors file: read without trust, and made.

A file is a length (8 bytes, little-endian), a header of that many bytes and the data. The header is
a JSON object: for each tensor its dtype, shape and the [begin, end) of its bytes in the data; the
tensors fill the data without overlap and without a hole.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, TypeGuard

from studio.errors import StudioError
from studio.weights.dtypes import ITEMSIZE
from studio.weights.strict_json import parse_object, shown

LENGTH_BYTES = 8
MAX_HEADER = 100_000_000  # the format's own limit
DATA_ALIGNMENT = 4096  # a header made here ends on a page, so that the data can be written directly
_MAX_DIMENSIONS = 64  # torch's own limit
_MAX_SIZE = 2**63
_METADATA = "__metadata__"
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor's bytes lie: `nbytes` of them from byte `start` of `file`.

    `dtype` is the safetensors name ("BF16"); the elements are in row-major order, without gaps.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    nbytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of a safetensors file by name, in the order in which they lie there.

    Reads the header only. Raises StudioError naming the file, the tensor and the value for
    anything that is not exactly as the format says.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            header = _header_bytes(path, stream, size)
    except OSError as error:
        raise StudioError(f"{path}: cannot be read ({error.strerror})") from error
    entries = parse_object(header, path)
    _check_metadata(path, entries.pop(_METADATA, {}))
    data_start = LENGTH_BYTES + len(header)
    tensors = [_tensor(path, name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.nbytes))
    _check_coverage(path, tensors, data_start, size)
    return {tensor.name: tensor for tensor in tensors}


def make_header(tensors: Iterable[tuple[str, str, Sequence[int]]]) -> bytes:
    """The first bytes of a file that holds tensors (name, dtype, shape) in the given order.

    Padded with spaces, so that the data begins at a multiple of 4096.
    """
    entries: dict[str, object] = {_METADATA: {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        assert name not in entries, name
        begin, end = end, end + ITEMSIZE[dtype] * prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % DATA_ALIGNMENT)
    assert len(text) <= MAX_HEADER, len(text)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def refuse_lfs_pointer(path: Path, first_bytes: bytes) -> None:
    """Raise StudioError if Git left a pointer where a file of weights should be."""
    if first_bytes.startswith(_LFS_POINTER):
        raise StudioError(
            f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in that folder"
        )


def _header_bytes(path: Path, stream: BinaryIO, size: int) -> bytes:
    first = stream.read(LENGTH_BYTES)
    if len(first) < LENGTH_BYTES:
        raise StudioError(f"{path}: only {size} bytes long, not a safetensors file; download again")
    length = int.from_bytes(first, "little")
    if length > min(MAX_HEADER, size - LENGTH_BYTES):
        refuse_lfs_pointer(path, first + stream.read(len(_LFS_POINTER)))
        raise StudioError(
            f"{path}: the header claims {length} bytes, the file has {size} and the limit is "
            f"{MAX_HEADER}; the file is cut short or not a safetensors file: download it again"
        )
    header = stream.read(length)
    if not header.startswith(b"{"):
        raise StudioError(f"{path}: the header begins with {shown(header[:8])} instead of '{{'")
    return header


def _check_metadata(path: Path, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise StudioError(f"{path}: {_METADATA} must map names to texts, found {shown(metadata)}")


def _tensor(path: Path, name: str, entry: object, data_start: int) -> TensorInfo:
    where = f"{path}: tensor {shown(name)}"
    if not isinstance(entry, dict):
        raise StudioError(f"{where}: expected dtype, shape and data_offsets, found {shown(entry)}")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise StudioError(f"{where}: unknown dtype {shown(dtype)}; known are {', '.join(ITEMSIZE)}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise StudioError(f"{where}: shape {shown(shape)} is not a list of sizes")
    begin, end = _offsets(where, entry.get("data_offsets"))
    if (nbytes := ITEMSIZE[dtype] * prod(shape)) != end - begin:
        raise StudioError(
            f"{where}: {dtype} of shape {shape} takes {nbytes} bytes, but data_offsets "
            f"[{begin}, {end}] span {end - begin}"
        )
    return TensorInfo(name, dtype, tuple(shape), path, data_start + begin, nbytes)


def _offsets(where: str, value: object) -> tuple[int, int]:
    if not _are_sizes(value) or len(value) != 2 or value[0] > value[1]:
        raise StudioError(f"{where}: data_offsets {shown(value)} are not [begin, end]")
    return value[0], value[1]


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether the value is a list of whole numbers from 0 that fit into 63 bits; no booleans."""
    return isinstance(value, list) and all(type(v) is int and 0 <= v < _MAX_SIZE for v in value)


def _check_coverage(path: Path, tensors: list[TensorInfo], data_start: int, size: int) -> None:
    """The tensors, sorted, must fill the file from the header's end to the last byte."""
    end = data_start
    for tensor in tensors:
        if tensor.start != end:
            fault = (
                "overlaps the tensor before" if tensor.start < end else "leaves a hole before it"
            )
            raise StudioError(
                f"{path}: tensor {shown(tensor.name)} {fault}: it begins at byte {tensor.start}, "
                f"expected {end}"
            )
        end = tensor.start + tensor.nbytes
    if end != size:
        raise StudioError(
            f"{path}: the tensors end at byte {end}, the file at {size}; it is "
            f"{'cut short' if size < end else 'longer than its header says'}: download it again"
        )
