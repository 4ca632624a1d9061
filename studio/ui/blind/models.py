"""The models that the form of a new trial offers, each under a name."""

import re
from pathlib import Path
from typing import Any

from studio.ui.finished import results_in, sources_of

MERGE, DEMO, SOURCE = "finished merge", "demo model", "source of a merge"


def offered(merges: Path, demo: Path) -> list[dict[str, Any]]:
    """The finished merges, newest first, then the demo models, then what the merges were made of.

    Each has a `label` that no other has, its `source`, its `kind`, and of a merge under `sources`
    the labels of its own.
    """
    found: dict[str, dict[str, Any]] = {}

    def add(label: str, source: str, kind: str) -> dict[str, Any]:
        taken = {each["label"].lower() for each in found.values()}
        fresh = {"label": _free(label, taken), "source": source, "kind": kind, "sources": []}
        return found.setdefault(_place(source), fresh)

    made = [add(each["name"], each["path"], MERGE) for each in results_in(merges)]
    for config in sorted(demo.glob("*/config.json")):
        add(f"demo-{config.parent.name}", str(config.parent), DEMO)
    for merge in made:
        sources = sources_of(Path(merge["source"]))
        merge["sources"] = [add(_name(source), source, SOURCE)["label"] for source in sources]
    return list(found.values())


def _place(source: str) -> str:
    """What two ways to write one model's place have in common."""
    return str(Path(source).resolve()) if Path(source).is_dir() else source


def _name(source: str) -> str:
    """The last part of a folder or a Hub id, as a label can be written."""
    last = source.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9 ._@:+()-]", "-", last).lstrip(" ._@:+()-")[:60] or "model"


def _free(label: str, taken: set[str]) -> str:
    numbered = [label, *(f"{label} ({number})" for number in range(2, len(taken) + 3))]
    return next(each for each in numbered if each.lower() not in taken)
