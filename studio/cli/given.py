"""Files that a command is given."""

from pathlib import Path

from studio.errors import StudioError


def read_text(path: Path) -> str:
    """The text of a file; raises StudioError naming it if there is none to read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise StudioError(f"{path}: cannot be read ({reason})") from error
