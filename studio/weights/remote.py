"""A checkpoint on the Hub, opened without its weights: only headers are fetched."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from studio.errors import StudioError
from studio.weights import hub
from studio.weights.checkpoint import Checkpoint, weight_files

SINGLE = "model.safetensors"
_FIRST = 100_000  # bytes: the whole header of nearly every file
_LENGTH_BYTES = 8


def open_model(model: str) -> Checkpoint:
    """The model's checkpoint; what is not on this machine is counted in `missing`, not fetched.

    The exception are repositories with .bin files only: there is no reading them in part, so they
    are downloaded. Raises StudioError as `Checkpoint.open` and `hub.all_files` do.
    """
    folder = hub.local_folder(model)
    if folder is not None:
        return Checkpoint.open(folder, model)
    folder = hub.small_files(model)
    names = weight_files(folder) or [SINGLE]
    if all((folder / name).is_file() for name in names):
        return Checkpoint.open(folder, model)
    if names[0].endswith(".bin"):
        names = [SINGLE]
    with TemporaryDirectory() as home:
        try:
            missing = 0
            for name in names:
                size = _lay_out(model, folder, Path(home), name)
                if size is None:
                    return Checkpoint.open(hub.all_files(model), model)
                missing += size
            opened = Checkpoint.open(Path(home), model)
        except StudioError as error:
            raise StudioError(str(error).replace(home, model)) from error
    tensors = {n: replace(t, file=folder / t.file.name) for n, t in opened.tensors.items()}
    files = tuple(folder / file.name for file in opened.files)
    return Checkpoint(model, folder, opened.config, tensors, files, missing)


def _lay_out(model: str, folder: Path, home: Path, name: str) -> int | None:
    """Make a file in `home` that begins as the model's file and is as long, with a hole for data.

    Returns the bytes that are still to be downloaded; None if the Hub has no such file.
    """
    for file in folder.glob("*.json"):
        if not (home / file.name).exists():
            (home / file.name).symlink_to(file.resolve())
    if (folder / name).is_file():
        (home / name).symlink_to((folder / name).resolve())
        return 0
    found = hub.first_bytes(model, folder, name, _FIRST)
    if found is None:
        return None
    first, size = found
    length = _LENGTH_BYTES + int.from_bytes(first[:_LENGTH_BYTES], "little")
    if len(first) < length <= size:
        found = hub.first_bytes(model, folder, name, length)
        assert found is not None
        first, size = found
    with (home / name).open("wb") as stream:
        stream.write(first)
        stream.truncate(size)
    return size
