"""What a checkpoint's files are, told from a few kilobytes of each."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import xxhash

from studio.errors import StudioError

_SAMPLES = 16
_SAMPLE_BYTES = 4096


def fingerprint(paths: Sequence[Path]) -> str:
    """32 hex digits that change with the files' names, sizes, structure or sampled contents.

    A safetensors file's structure is its header, a .bin's the list of its records with their
    checksums; small files are read whole. Where the files are does not matter. Two files that
    differ only between the 16 sampled blocks of a safetensors file's data look alike.
    """
    digest = xxhash.xxh3_128()
    for path in sorted(paths, key=lambda path: path.name):
        try:
            parts = [path.name.encode(), *_parts(path)]
        except (OSError, zipfile.BadZipFile) as error:
            raise StudioError(f"{path}: cannot be read any more ({error}); start again") from error
        for part in parts:
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return [str(size).encode(), _structure(stream, path.suffix), *_samples(stream, size)]


def _structure(stream: BinaryIO, suffix: str) -> bytes:
    if suffix == ".safetensors":
        return stream.read(int.from_bytes(stream.read(8), "little"))
    if suffix == ".bin":
        records = zipfile.ZipFile(stream).infolist()
        return repr(
            [(record.filename, record.file_size, record.CRC) for record in records]
        ).encode()
    return stream.read()


def _samples(stream: BinaryIO, size: int) -> list[bytes]:
    """Blocks at equal distances, the first and the last one among them."""
    last = max(size - _SAMPLE_BYTES, 0)
    blocks = []
    for index in range(_SAMPLES):
        stream.seek(last * index // (_SAMPLES - 1))
        blocks.append(stream.read(_SAMPLE_BYTES))
    return blocks
