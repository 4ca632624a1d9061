"""The owner's recipes: one file each, plain mergekit YAML whose first comment is a note."""

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from studio.durable import write_whole
from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe

NAME = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9 ._-]{0,78}[A-Za-z0-9_-])?")
LONGEST_NOTE = 2000
LARGEST_FILE = 400_000
MOST_RECIPES = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """A recipe of the library; `saved` in seconds since 1970.

    `problem`: why its file cannot be read, if so.
    """

    name: str
    note: str
    saved: float
    problem: str = ""


class Library:
    """Recipes in `folder`, each replaced as a whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """What there is, the newest first; a file that cannot be read hides no other."""
        found = [entry for path in self._files() if (entry := _entry(path))]
        return sorted(found, key=lambda entry: entry.saved, reverse=True)

    def open(self, name: object) -> Recipe:
        """The recipe of that name; raises StudioError if there is none or it cannot be read."""
        path = self._path(name)
        if not path.is_file():
            raise StudioError(f'the library has no recipe "{path.stem}"; it may have been deleted')
        return load_recipe(_read(path), path.name)

    def save(self, name: object, recipe: Recipe, note: object, *, replace: bool) -> None:
        """Keep a recipe; raises FileExistsError if the name is taken and not to be replaced.

        Raises StudioError for an unusable name or note and for a folder that cannot be written.
        """
        path = self._path(name)
        text = _commented(note) + dump_recipe(recipe)
        if len(text.encode()) > LARGEST_FILE:
            raise StudioError(f"a recipe of {len(text):,} characters is too long for the library")
        with self._lock:
            if path.exists() and not replace:
                raise FileExistsError(path)
            if not path.exists() and len(self._files()) >= MOST_RECIPES:
                raise StudioError(f"the library is full ({MOST_RECIPES} recipes); delete some")
            write_whole(path, text)

    def delete(self, name: object) -> None:
        """Delete a recipe; one that is gone already is fine. Raises StudioError if it stays."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StudioError(f"{path}: cannot be deleted ({error.strerror})") from error

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("*.yaml") if NAME.fullmatch(path.stem)]

    def _path(self, name: object) -> Path:
        text = name.strip() if isinstance(name, str) else name
        if not isinstance(text, str) or not NAME.fullmatch(text):
            raise StudioError(
                f"{str(text)[:90]!r} cannot name a recipe: use 1 to 80 letters, digits, spaces, "
                "dots, dashes and underscores, with none of the dots or spaces at its ends"
            )
        return self.folder / f"{text}.yaml"


def _entry(path: Path) -> Entry | None:
    """What the list says of a file; None if it is gone by now."""
    try:
        saved = path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        return Entry(path.stem, _note(_read(path)), saved)
    except StudioError as error:
        is_gone = isinstance(error.__cause__, FileNotFoundError)
        return None if is_gone else Entry(path.stem, "", saved, str(error))


def _commented(note: object) -> str:
    """The note as a comment; its lines cannot become anything else."""
    if not isinstance(note, str | None) or len(note or "") > LONGEST_NOTE:
        raise StudioError(f"a note is text of at most {LONGEST_NOTE} characters")
    shown = "".join(c if c == "\n" or c.isprintable() else " " for c in (note or "").strip())
    return "".join(f"# {line}".rstrip() + "\n" for line in shown.split("\n")) if shown else ""


def _note(text: str) -> str:
    """The comment that the file begins with."""
    lines = []
    for line in text.split("\n"):
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    return "\n".join(lines).strip()[:LONGEST_NOTE]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise StudioError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > LARGEST_FILE:
        raise StudioError(f"{path} is too large for a recipe; take it out of the library")
    return data.decode("utf-8", "replace")
