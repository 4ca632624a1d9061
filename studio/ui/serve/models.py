"""The models that the page offers to serve, and how each is spoken to."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.serve.formats import Format, detect
from studio.serve.kept import Formats
from studio.serve.planning.models import config_folder, is_here

SOURCE, MERGE, ADDED = "source of the recipe", "finished merge", "added"
MOST_ADDED = 30


def offered(
    recipe: Recipe | None,
    merges: Sequence[Mapping[str, Any]],
    added: Iterable[str],
    formats: Formats,
) -> list[dict[str, Any]]:
    """The finished merges, the sources of the recipe, then what the user added; each once."""
    named = [(str(merge["path"]), MERGE) for merge in merges]
    named += [(source, SOURCE) for source in (recipe.sources if recipe else ())]
    named += [(model, ADDED) for model in added]
    kinds: dict[str, str] = {}
    for model, kind in named:
        kinds.setdefault(model, kind)
    return [_entry(model, kind, formats) for model, kind in kinds.items()]


def _entry(model: str, kind: str, formats: Formats) -> dict[str, Any]:
    entry: dict[str, Any] = {"model": model, "kind": kind, "problem": "", "format": None}
    entry["label"] = Path(model.rstrip("/")).name
    try:
        folder = config_folder(model)
        entry["here"] = is_here(model)
        if folder and not (folder / "config.json").is_file():
            raise StudioError(f"{model}: there is no config.json; this folder holds no model")
        found = formats.of(model, folder) or detect(model, folder)
        entry["format"] = found and format_data(found)
    except StudioError as error:  # one bad entry must not hide the others
        entry |= {"here": False, "problem": str(error)}
    return entry


def format_data(used: Format) -> dict[str, Any]:
    """A format for the page."""
    return {
        "name": used.name,
        "template": used.template,
        "stop": list(used.stop),
        "why": used.why,
    }
