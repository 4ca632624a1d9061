"""A model's folder: which tensors it has, in which files, and the tensors themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.weights.dtypes import FLOATS
from studio.weights.fingerprint import fingerprint
from studio.weights.header import TensorInfo, read_header
from studio.weights.pages import map_tensor
from studio.weights.pickled import read_pickled
from studio.weights.strict_json import read_object, shown

if TYPE_CHECKING:
    from torch import Tensor

Reader = Callable[[Path], dict[str, TensorInfo]]
CONFIG = "config.json"
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"  # of a single file
INDEX = ".index.json"  # behind it: which of several files holds which tensor
# What a folder may hold, the first one wins: its only file, and how its files are read.
_FORMATS: tuple[tuple[str, Reader], ...] = ((SAFETENSORS, read_header), (PICKLED, read_pickled))
_PACKED = (".qweight", ".weight_packed", ".quant_state", ".SCB")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights and the config of one model, opened: headers are read, weights are not.

    `label` is what to call it: the recipe's reference. `config` is the parsed config.json.
    `tensors` are in the order in which they lie in `files`, the files in the order of their names.
    `missing`: bytes that are still to be downloaded before the weights can be read.
    """

    label: str
    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    files: tuple[Path, ...]
    missing: int = 0

    @classmethod
    def open(cls, path: Path, label: str) -> "Checkpoint":
        """Read the config and the headers of the model in the folder `path`.

        Raises StudioError if the folder is not a whole, unquantised checkpoint; the message says
        which file, which value and what to do.
        """
        if not path.is_dir():
            raise StudioError(f"{label}: there is no folder {path}; download the model into it")
        config = read_object(path / CONFIG)
        tensors = _find_tensors(path)
        _refuse_quantised(path, config, tensors)
        files = tuple(sorted({tensor.file for tensor in tensors.values()}))
        return cls(label, path, config, tensors, files)

    def load(self, name: str) -> "Tensor":
        """The tensor, contiguous and on the CPU, mapped from its file; imports torch."""
        return map_tensor(self.tensors[name])

    def fingerprint(self) -> str:
        """The same for every copy of this checkpoint, another for any other: 32 hex digits."""
        return fingerprint([self.path / CONFIG, *self.files])

    def state(self) -> list[tuple[str, int, int, int]]:
        """(name, size, mtime in ns, inode) of each file: unchanged if nobody touched them."""
        stats = [(file.name, file.stat()) for file in self.files]
        return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats]


def weight_files(folder: Path) -> list[str] | None:
    """The files with the folder's weights, by its index or because they are there; None: unknown.

    Raises StudioError for an index that is damaged.
    """
    if (found := _found(folder)) is None:
        return None
    file, _ = found
    return sorted(set(_weight_map(file).values())) if file.name.endswith(INDEX) else [file.name]


def _found(folder: Path) -> tuple[Path, Reader] | None:
    """The index of the folder's weights, or else their only file, and how its files are read."""
    for name, read in _FORMATS:
        for file in (folder / (name + INDEX), folder / name):
            if file.exists():
                return file, read
    return None


def _find_tensors(folder: Path) -> dict[str, TensorInfo]:
    if (found := _found(folder)) is None:
        names = " nor ".join(name for name, _ in _FORMATS)
        raise StudioError(
            f"{folder}: no weights: neither {names} (nor an index of several); download the model "
            "again"
        )
    file, read = found
    return _indexed_tensors(file, read) if file.name.endswith(INDEX) else read(file)


def _indexed_tensors(index: Path, read: Reader) -> dict[str, TensorInfo]:
    """The tensors that the index names; others that lie in its files are left out."""
    weight_map = _weight_map(index)
    files = sorted(set(weight_map.values()))
    missing = [file for file in files if not (index.parent / file).is_file()]
    if missing:
        raise StudioError(
            f"{index.parent}: {len(missing)} of {len(files)} files of weights are missing: "
            f"{', '.join(missing)}; download them"
        )
    held = {file: read(index.parent / file) for file in files}
    absent = [name for name, file in weight_map.items() if name not in held[file]]
    if absent:
        raise StudioError(
            f"{index}: {len(absent)} tensors are not in the files it names, the first is "
            f"{shown(absent[0])} in {weight_map[absent[0]]}; download the model again"
        )
    return {
        name: tensor
        for file, tensors in held.items()
        for name, tensor in tensors.items()
        if weight_map.get(name) == file
    }


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise StudioError(f"{index}: weight_map is {shown(weight_map)}; download the file again")
    suffix = Path(index.name.removesuffix(INDEX)).suffix
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(suffix):
            raise StudioError(
                f"{index}: tensor {shown(name)} is said to be in {shown(file)}, which is not a "
                f"{suffix} file of this folder"
            )
    return weight_map


def _refuse_quantised(
    folder: Path, config: dict[str, object], tensors: dict[str, TensorInfo]
) -> None:
    packed = (
        f"{tensor.name} is {tensor.dtype}"
        for tensor in tensors.values()
        if any(mark in tensor.name for mark in _PACKED)
        or (tensor.name.endswith(".weight") and tensor.dtype not in FLOATS)
    )
    sign = "config.json has quantization_config" if config.get("quantization_config") else None
    if sign := sign or next(packed, None):
        raise StudioError(f"{folder}: quantised ({sign}); merge the unquantised original")
