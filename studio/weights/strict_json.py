"""JSON files that others wrote, read without trust."""

import json
import reprlib
from collections import Counter
from pathlib import Path

from studio.errors import StudioError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def shown(value: object) -> str:
    """The value for an error message: never longer than a line, whatever the file holds."""
    return _SHORT.repr(value)


def parse_object(data: bytes, where: Path) -> dict[str, object]:
    """The JSON object in `data`, which came from the file `where`; no name may occur twice in it.

    Raises StudioError if it is anything else.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_clean_names)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise StudioError(f"{where}: not valid JSON ({reason}); download the file again") from error
    if not isinstance(value, dict):
        raise StudioError(f"{where}: expected a JSON object, found {shown(value)}")
    return value


def read_object(path: Path) -> dict[str, object]:
    """The JSON object that the file holds; raises StudioError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StudioError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_object(data, path)


def _clean_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name, count = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{shown(name)} occurs {count} times")
    "".join(found).encode()  # half a surrogate pair, legal in JSON, fits into no file: ValueError
    return found
