"""What a user saves for another day: sampling presets and prompt formats, one JSON file each."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.durable import locked, write_whole
from studio.errors import StudioError, nearest
from studio.serve.formats import EDITED, OWN, Format, edited, format_names
from studio.serve.sampling import PRESETS, Sampling
from studio.weights.strict_json import read_object

NAME = re.compile(r"[^\s/\\][^/\\\n\r\t]{0,38}[^\s/\\]|[^\s/\\]")
MOST = 100


class Kept:
    """Named objects in a file that is replaced whole; what another process wrote is seen."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, Any]:
        """All of them; raises StudioError if the file is not what was written."""
        return dict(read_object(self._file)) if self._file.is_file() else {}

    def put(self, name: str, value: object) -> None:
        """Keep `value` under this name, None to forget it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._file.parent):
            kept = self.read()
            if value is None:
                kept.pop(name, None)
            else:
                kept[name] = value
            if len(kept) > MOST:
                raise StudioError(f"{MOST} are kept already; forget some first")
            write_whole(self._file, json.dumps(kept, ensure_ascii=False, indent=1))


class Presets:
    """The studio's sampling presets and the user's own, by name."""

    def __init__(self, folder: Path) -> None:
        self._kept = Kept(folder / "presets.json")

    def all(self) -> Mapping[str, Sampling]:
        """The studio's first, then the user's."""
        own = {name: Sampling.from_data(data) for name, data in self._kept.read().items()}
        return {**PRESETS, **own}

    def save(self, name: object, data: object) -> None:
        """Keep a sampling; raises StudioError if a value, or the name, cannot be."""
        self._kept.put(_checked(name), Sampling.from_data(data).as_data())

    def forget(self, name: object) -> None:
        """Drop a preset of the user's."""
        self._kept.put(_checked(name), None)


class Formats:
    """The prompt formats that the user edited, by model; a folder counts under any name it has."""

    def __init__(self, folder: Path) -> None:
        self._kept = Kept(folder / "formats.json")

    def of(self, model: str, folder: Path | None) -> Format | None:
        """The edited format of a model, None if there is none."""
        data = self._data(model)
        return edited(data["template"], data["stop"], folder) if data else None

    def written(self, model: str, name: str | None) -> tuple[str, tuple[str, ...]] | None:
        """Template and stop strings of the edited format, where that is what `name` means.

        "edited" is the model's edited format, None is that too if there is one. None comes back for
        every other name of a format. Raises StudioError for a name of none, and for "edited" where
        nothing was.
        """
        data = self._data(model) if name in (None, EDITED) else None
        if data:
            return str(data["template"]), tuple(data["stop"])
        if name == EDITED:
            raise StudioError(
                f"{model}: no prompt format was edited for it here; save one in the Serve tab, "
                f"under Prompt format, or use {', '.join((OWN, *format_names()))}"
            )
        if name not in (None, OWN, *format_names()):
            known = (OWN, EDITED, *format_names())
            raise StudioError(
                f'{model}: "{name}" is not a prompt format{nearest(str(name), known)}; use '
                f"{', '.join(known)}"
            )
        return None

    def save(self, model: str, used: Format | None) -> None:
        """Keep an edited format for a model, None to forget it."""
        kept = used and {"template": used.template, "stop": list(used.stop)}
        for old in [each for each in self._kept.read() if _place(each) == _place(model)]:
            self._kept.put(old, None)
        self._kept.put(_place(model), kept)

    def _data(self, model: str) -> dict[str, Any] | None:
        kept = {_place(each): data for each, data in self._kept.read().items()}
        return kept.get(_place(model))


def _place(model: str) -> str:
    """A folder's whole path; a Hub id as it is."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model


def _checked(name: object) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise StudioError(f"{str(name)[:60]!r} cannot name a preset: use 1 to 40 letters on a line")
    if name in PRESETS:
        raise StudioError(f'"{name}" is a preset of the studio; choose another name')
    return name
