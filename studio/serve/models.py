"""From a model's name to its shape: its folder's config.json, the Hub's, or as published."""

from dataclasses import replace
from pathlib import Path

from studio.errors import StudioError
from studio.serve.known_shapes import PUBLISHED
from studio.serve.shapes import Shape, read_shape
from studio.weights.hub import local_folder, small_files
from studio.weights.strict_json import read_object


def folder_here(model: str) -> Path | None:
    """The folder with the model's config: its own, or in the Hub's cache here; fetches nothing.

    Raises StudioError if `model` is a path where there is no folder.
    """
    folder = local_folder(model)
    if folder is not None:
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, _, revision = model.partition("@")
    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision or None)
    except HFValidationError as error:
        raise StudioError(
            f"{model}: neither a folder here nor a Hub id of the form owner/name"
        ) from error
    return Path(found).parent if isinstance(found, str) else None


def shape_of(model: str) -> Shape:
    """The shape of a folder or a Hub id; fetches nothing larger than its small files.

    Raises StudioError if there is no such model, or it cannot be planned.
    """
    published = next((c for name, c in PUBLISHED.items() if name.lower() == model.lower()), None)
    if published is not None and folder_here(model) is None:
        note = "not on this machine: planned with its published sizes"
        return replace(read_shape(published, model), notes=(note,))
    path = small_files(model) / "config.json"
    if not path.is_file():
        raise StudioError(f"{model}: there is no config.json; it is not a model that can be served")
    return read_shape(read_object(path), model)
