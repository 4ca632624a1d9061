"""The tokens of a model by id, as its tokenizer's files give them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.weights.strict_json import shown

TOKENIZER, CONFIG, ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
SENTENCEPIECE = "tokenizer.model"
# What reading a file of unexpected structure raises.
MALFORMED = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
_PIECE, _TEXT, _BYTES = 1, 1, 2  # SentencePiece: the field of a piece, of its text, their wire type


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`by_id`: every token; `added`: the settings of those that were added to the trained ones."""

    by_id: dict[int, str]
    added: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The vocabulary of the model in the folder; None where no file tells it.

    The trained tokens come from tokenizer.json or else from tokenizer.model, the added ones also
    from tokenizer_config.json and added_tokens.json; where two files differ, the first one holds.
    Raises StudioError for a .json that is not what its name says; tokenizer.model is the name of
    several formats, of which SentencePiece's is read.
    """
    found = _trained(folder)
    if found is None:
        return None
    for token, number, settings in (*_configured(folder), *_listed(folder)):
        if number not in found.by_id:
            found.by_id[number] = token
            found.added[token] = settings
    return found


def _trained(folder: Path) -> Vocabulary | None:
    if (path := folder / TOKENIZER).is_file():
        try:
            return _of_json(json.loads(path.read_text(encoding="utf-8")))
        except MALFORMED as error:
            raise _damaged(path, error) from error
    if (path := folder / SENTENCEPIECE).is_file():
        try:
            return Vocabulary(dict(enumerate(_pieces(path.read_bytes()))))
        except MALFORMED:
            return None
    return None


def _of_json(data: Any) -> Vocabulary:
    tokens = data["model"]["vocab"]
    if isinstance(tokens, Mapping):
        by_id = {int(number): token for token, number in tokens.items()}
    else:  # unigram models keep a list of (token, score)
        by_id = {number: entry[0] for number, entry in enumerate(tokens)}
    entries = data.get("added_tokens", [])
    by_id |= {int(entry["id"]): entry["content"] for entry in entries}
    return Vocabulary(by_id, {entry["content"]: _settings(entry) for entry in entries})


def _configured(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    path = folder / CONFIG
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder") or {}
        return [(e["content"], int(number), _settings(e)) for number, e in entries.items()]
    except MALFORMED as error:
        raise _damaged(path, error) from error


def _listed(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    path = folder / ADDED
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [(str(token), int(number), {}) for token, number in entries.items()]
    except MALFORMED as error:
        raise _damaged(path, error) from error


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("id", "content")}


def _damaged(path: Path, error: Exception) -> StudioError:
    return StudioError(f"{path}: this is not a tokenizer file ({shown(error)}); download it again")


def _pieces(data: bytes) -> Iterator[str]:
    """The texts of the pieces of a SentencePiece model, in the order of their ids."""
    found = 0
    for number, piece in _fields(data):
        if number == _PIECE and isinstance(piece, bytes):
            found += 1
            yield next(
                text.decode("utf-8")
                for key, text in _fields(piece)
                if key == _TEXT and isinstance(text, bytes)
            )
    if not found:
        raise ValueError("no pieces")


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a Protocol Buffers message: their numbers and values."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        else:
            length = {1: 8, 5: 4}[kind]
        if at + length > len(data):
            raise ValueError("cut short")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
