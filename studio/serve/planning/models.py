"""From a model's name to its shape: its folder's config.json, the Hub's, or as published."""

from dataclasses import replace
from pathlib import Path

from studio.errors import StudioError
from studio.serve.planning.known_shapes import PUBLISHED
from studio.serve.planning.shapes import Shape, read_shape
from studio.weights import hub
from studio.weights.strict_json import read_object


def is_url(source: str) -> bool:
    """Whether a model's source is a server that runs elsewhere."""
    return source.startswith(("http://", "https://"))


def check_source(source: str) -> None:
    """Raise StudioError if there can be no such model: a path without a folder, or no Hub id.

    Neither a server nor the Hub is asked.
    """
    if not is_url(source):
        config_folder(source)


def is_here(model: str) -> bool:
    """Whether the model's weights are on this machine."""
    return hub.folder_here(model) is not None


def config_folder(model: str) -> Path | None:
    """The folder with the model's config: its own, or in the Hub's cache here; fetches nothing.

    Raises StudioError if `model` is a path where there is no folder.
    """
    folder = hub.local_folder(model)
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
    if published is not None and config_folder(model) is None:
        note = "not on this machine: planned with its published sizes"
        return replace(read_shape(published, model), notes=(note,))
    path = hub.small_files(model) / "config.json"
    if not path.is_file():
        raise StudioError(f"{model}: there is no config.json; it is not a model that can be served")
    return read_shape(read_object(path), model)
