"""PyTorch .bin files: where their tensors lie, found out without running what is in them.

Such a file is a zip archive of a pickle, which tells names, dtypes and shapes, of a few small
records, and of one uncompressed record for each tensor, so its tensors can be mapped like those of
a safetensors file.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from studio.errors import StudioError
from studio.weights.dtypes import TORCH_NAMES
from studio.weights.header import MAX_HEADER, TensorInfo, refuse_lfs_pointer
from studio.weights.strict_json import shown

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_DATA = re.compile("[^/]+/data/[^/]+")
_DTYPES = {f"torch.{long}": short for short, long in TORCH_NAMES.items()}


class Readable(Protocol):
    """What zipfile needs of a binary file."""

    def seekable(self) -> bool:
        """True."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place and tell which."""

    def tell(self) -> int:
        """The place."""

    def read(self, count: int = -1, /) -> bytes:
        """The next `count` bytes, or all to the end."""


def read_pickled(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of a .bin file by name, in the order in which they lie there.

    Reads the pickle only, with torch's restricted unpickler. Raises StudioError for a file that is
    damaged, in the format before torch 1.6, or that asks for code to be run.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            read_all_but_data(stream, path)
    except OSError as error:
        raise StudioError(f"{path}: cannot be read ({error.strerror})") from error
    tensors = [_tensor(path, size, name, value) for name, value in _unpickle(path).items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.nbytes))
    return {tensor.name: tensor for tensor in tensors}


def read_all_but_data(stream: Readable, path: Path) -> None:
    """Read all of a .bin file, open as `stream`, that `read_pickled` needs: not the tensors' data.

    `path` is what to call it. Raises StudioError if it is not a zip archive as torch writes them.
    """
    stream.seek(0)
    first_bytes = stream.read(32)
    if not first_bytes.startswith(_ZIP):
        refuse_lfs_pointer(path, first_bytes)
        fault = (
            "in the format before torch 1.6" if first_bytes[:1] == _PICKLE else "not a .bin file"
        )
        raise StudioError(
            f"{path}: {fault}; convert the model to safetensors, or find a copy of it"
        )
    with _damage_told(path), zipfile.ZipFile(stream) as archive:
        records = archive.infolist()
        if any(
            r.compress_type != zipfile.ZIP_STORED or r.compress_size != r.file_size for r in records
        ):
            raise ValueError("its records are compressed")
        small = [record for record in records if not _DATA.fullmatch(record.filename)]
        if (nbytes := sum(record.file_size for record in small)) > MAX_HEADER:
            raise ValueError(f"{nbytes} bytes beside the tensors' data")
        for record in small:
            archive.read(record)


def _unpickle(path: Path) -> dict[object, object]:
    """The pickle's entries; the tensors are "meta": no data, but an offset into the file."""
    import torch

    with _damage_told(path):
        entries = torch.load(path, map_location="meta", weights_only=True)
    if not isinstance(entries, dict):
        raise StudioError(f"{path}: holds {shown(entries)} instead of tensors by name")
    return entries


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """What reading the file raises, as StudioError: KeyError, struct.error, it may be anything."""
    try:
        yield
    except StudioError:
        raise
    except Exception as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and asked:
            raise StudioError(
                f"{path}: not only weights: it asks to run {shown(asked[1])}, which is refused; "
                "use a safetensors version of the model"
            ) from error
        reason = shown(str(error).partition("\n")[0])
        raise StudioError(
            f"{path}: cut short or damaged ({type(error).__name__}: {reason}); download it again"
        ) from error


def _tensor(path: Path, size: int, name: object, value: object) -> TensorInfo:
    import torch

    where = f"{path}: tensor {shown(name)}"
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise StudioError(f"{where}: expected a name and a tensor, found {type(value).__name__}")
    if (dtype := _DTYPES.get(str(value.dtype))) is None or value.layout != torch.strided:
        raise StudioError(f"{where}: {value.layout} {value.dtype} is none of {', '.join(_DTYPES)}")
    if not value.is_contiguous():
        raise StudioError(f"{where}: stored transposed; convert the model to safetensors")
    storage = value.untyped_storage()
    begin = value.storage_offset() * value.itemsize
    offset = getattr(storage, "_checkpoint_offset", None)
    if (
        offset is None
        or begin + value.nbytes > storage.nbytes()
        or offset + begin > size - value.nbytes
    ):
        raise StudioError(f"{where}: does not lie within the file; download it again")
    return TensorInfo(name, dtype, tuple(value.shape), path, offset + begin, value.nbytes)
