"""YAML, JSONL and CSV as plain records that remember their lines."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from studio.errors import StudioError

LARGEST_FILE = 8_000_000
MOST_NODES = 500_000
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a file: its values, and the line of each part of it as far as known."""

    origin: str
    line: int
    values: Any
    lines: Mapping[Where, int] = field(default_factory=dict)

    def fail(self, where: Where, problem: str) -> NoReturn:
        """Raise a StudioError that names the file, the line and the part `where` lies in."""
        line = next(
            (self.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.lines),
            self.line,
        )
        # In YAML and JSON lists count from 0, people from 1.
        label = ", ".join(f"no. {part + 1}" if isinstance(part, int) else part for part in where)
        raise StudioError(f"{self.origin}, line {line}: {f'{label}: ' if label else ''}{problem}")


def read_records(path: Path) -> list[Record]:
    """The records of a file, told apart by its ending: .yaml, .yml, .jsonl or .csv.

    Raises StudioError, with file and line, if it cannot be read as such.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise StudioError(f"{path}: larger than {LARGEST_FILE:,} bytes; split it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StudioError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise StudioError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return records_of(text, str(path))


def records_of(text: str, origin: str) -> list[Record]:
    """The records in a file's text; `origin` is its name, and tells by its ending what it is."""
    readers = {".yaml": _yaml, ".yml": _yaml, ".jsonl": _jsonl, ".csv": _csv}
    reader = readers.get(Path(origin).suffix.lower())
    if reader is None:
        raise StudioError(f"{origin}: prompts are read from .yaml, .jsonl and .csv files")
    return reader(text, origin)


def _yaml(text: str, origin: str) -> list[Record]:
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudioError(f"{origin}{where}: this is not valid YAML: {what}") from error
    if tree is None:
        return []
    if not isinstance(tree, yaml.SequenceNode):
        raise StudioError(f"{origin}, line 1: expected a list, each item beginning with a dash")
    return [_Builder(origin).record(node) for node in tree.value]


class _Builder:
    """Turns one YAML node into values, noting lines; aliases may repeat parts, within a bound."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.lines: dict[Where, int] = {}
        self.scalars = yaml.SafeLoader("")

    def record(self, node: yaml.Node) -> Record:
        line = node.start_mark.line + 1
        return Record(self.origin, line, self.value(node, ()), self.lines)

    def value(self, node: yaml.Node, where: Where) -> Any:
        line = node.start_mark.line + 1
        self.lines[where] = line
        if len(self.lines) > MOST_NODES or len(where) > 20:
            raise StudioError(f"{self.origin}, line {line}: nested or repeated too much")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*where, n)) for n, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return self.scalar(node)
        found: dict[str, Any] = {}
        for key_node, item in node.value:
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            here = f"{self.origin}, line {key_node.start_mark.line + 1}"
            if not isinstance(key, str):
                raise StudioError(f"{here}: a key must be plain text")
            if key in found:
                raise StudioError(f'{here}: "{key}" is given twice; keep one')
            found[key] = self.value(item, (*where, key))
        return found

    def scalar(self, node: yaml.Node) -> Any:
        try:
            return self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            line = node.start_mark.line + 1
            raise StudioError(f"{self.origin}, line {line}: {error}; put it in quotes") from error


def _jsonl(text: str, origin: str) -> list[Record]:
    # Not splitlines(): it also breaks at characters that may stand inside a JSON text.
    numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [Record(origin, n, _json(line, f"{origin}, line {n}")) for n, line in numbered]


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise StudioError(f"{where}: not valid JSON ({error})") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} is given twice")
    return found


def _csv(text: str, origin: str) -> list[Record]:
    """Columns by name. Cells of the columns messages and constraints hold JSON, tags are split at
    semicolons, whole numbers and true and false are read as such, and an empty cell is left out.
    Where the first line has no comma, semicolons or tabs part the cells, as some spreadsheets write
    them."""
    head = text.partition("\n")[0]
    parting = next((mark for mark in ",;\t" if mark in head), ",")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=parting, strict=True)
    records: list[Record] = []
    try:
        names = [name.strip() for name in next(rows, [])]
        if len(set(names)) < len(names):
            raise StudioError(f"{origin}, line 1: a column occurs twice")
        first = rows.line_num + 1
        for row in rows:
            if row:
                records.append(_csv_record(dict(zip(names, row, strict=True)), origin, first))
            first = rows.line_num + 1
    except csv.Error as error:
        raise StudioError(f"{origin}, line {rows.line_num}: not valid CSV ({error})") from error
    except ValueError as error:
        raise StudioError(
            f"{origin}, line {first}: {len(row)} cells where the first line names {len(names)}"
        ) from error
    return records


def _csv_record(cells: Mapping[str, str], origin: str, line: int) -> Record:
    values: dict[str, Any] = {}
    for name, cell in cells.items():
        if not cell.strip():
            continue
        if name in ("messages", "constraints"):
            values[name] = _json(cell, f"{origin}, line {line}: {name}")
        elif name == "tags":
            values[name] = [tag.strip() for tag in cell.split(";") if tag.strip()]
        elif name == "max_tokens" and cell.strip().isdecimal():
            values[name] = int(cell)
        elif name in ("sealed", "sensitive"):
            values[name] = {"true": True, "false": False}.get(cell.strip().lower(), cell)
        else:
            values[name] = cell
    return Record(origin, line, values)
