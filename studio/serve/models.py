"""From a model's name to its shape: its folder's config.json, the Hub's, or as published."""

from dataclasses import replace

from studio.errors import StudioError
from studio.serve.known_shapes import PUBLISHED
from studio.serve.shapes import Shape, read_shape
from studio.weights.hub import local_folder, small_files
from studio.weights.strict_json import read_object


def shape_of(model: str) -> Shape:
    """The shape of a folder or a Hub id; fetches nothing larger than its small files.

    Raises StudioError if there is no such model, or it cannot be planned.
    """
    published = next((c for name, c in PUBLISHED.items() if name.lower() == model.lower()), None)
    if published is not None and local_folder(model) is None:
        note = "not on this machine: planned with its published sizes"
        return replace(read_shape(published, model), notes=(note,))
    path = small_files(model) / "config.json"
    if not path.is_file():
        raise StudioError(f"{model}: there is no config.json; it is not a model that can be served")
    return read_shape(read_object(path), model)
