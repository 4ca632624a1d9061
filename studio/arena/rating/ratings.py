"""ratings.csv: a row a vote, only ever appended.

The first columns are those of the public arena data, so that its tools read the file as it is; the
last one ends every row with the version of the format, so that a row cut short is never taken for
a whole one. A vote that was undone stays in the file; the row that replaces it names it in
`supersedes`. `export.py` writes the votes that stand. Every cell is encoded (`encode_text`), which
changes only what a spreadsheet would take for a formula, line ends and backslashes.

    model_a, model_b   labels of the models shown as A and as B; "sealed" in a trial pack
    winner             model_a | model_b | tie | tie (bothbad)
    judge              the rater's name
    tstamp             seconds since 1970, UTC
    turn               number of the user's messages in the prompt
    language           of the answer, two letters
    anony              True: the rater did not know the models
    vote, supersedes   ids of this vote and of the undone one it replaces
    trial, design_hash the trial's name, and the hash of all that was fixed before the first answer
    item, kind         what was shown: counted, identical or repeat (see schedule.py)
    pairing            the two answers, whichever side they were on
    prompt, category   of the prompt file
    draw_a, draw_b     which of a model's draws
    answer_a, answer_b hashes of the two answers in answers.jsonl
    masked             True: an identity was masked in one of the answers
    recognised         True: the rater says that they recognised a model
    scores             JSON, names to 1 … 5; empty if not asked
    comment            free text
    seconds            from showing to vote
    side_seed          hash of the secret from which sides and order were drawn
    sampling           JSON, the parameters of both answers; where their stop strings differ, by
                       their formats, these are in answers.jsonl alone
    format_*, quantisation_*, fingerprint_*   prompt format, quantisation, fingerprint of each model
    recipe_a, recipe_b fingerprints of the recipes they were merged by; empty where none is known
    app_version        of the studio
    version            of this format: v2
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from studio.durable import append
from studio.errors import StudioError

FILE = "ratings.csv"
VERSION = "v2"
SEALED = "sealed"
LONGEST_COMMENT = 2000
_FORMULA = ("=", "+", "-", "@", "\t", "'", "＝", "＋", "－", "＠")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\0": "\\0"}
_UNESCAPES = {escaped[1]: plain for plain, escaped in _ESCAPES.items()}


class Verdict(StrEnum):
    """What a rater says of two answers."""

    MODEL_A = "model_a"
    MODEL_B = "model_b"
    TIE = "tie"
    BOTH_BAD = "tie (bothbad)"


@dataclass(frozen=True, slots=True)
class Remarks:
    """What a rater may add to a verdict: raises StudioError for what cannot be.

    `scores`: from 1 to 5, by the name of what is scored and the side, as in style_a.
    """

    recognised: bool = False
    comment: str = ""
    scores: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.comment, str) or len(self.comment) > LONGEST_COMMENT:
            raise StudioError(f"a comment has at most {LONGEST_COMMENT} characters; shorten it")
        if not isinstance(self.recognised, bool):
            raise StudioError("recognised is true or false")
        if not isinstance(self.scores, Mapping):
            raise StudioError("scores are an object of names and numbers")


SILENT = Remarks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One row of ratings.csv; the fields are its columns."""

    model_a: str
    model_b: str
    winner: Verdict
    judge: str
    tstamp: float
    turn: int
    language: str
    anony: bool
    vote: str
    supersedes: str
    trial: str
    design_hash: str
    item: str
    kind: str
    pairing: str
    prompt: str
    category: str
    draw_a: str
    draw_b: str
    answer_a: str
    answer_b: str
    masked: bool
    recognised: bool
    scores: str
    comment: str
    seconds: float
    side_seed: str
    sampling: str
    format_a: str
    format_b: str
    quantisation_a: str
    quantisation_b: str
    fingerprint_a: str
    fingerprint_b: str
    recipe_a: str
    recipe_b: str
    app_version: str
    version: str = VERSION


COLUMNS = tuple(field.name for field in dataclasses.fields(Vote))
HEADER = ",".join(COLUMNS)
_PARSE: dict[str, Any] = {
    "winner": Verdict,
    "tstamp": float,
    "seconds": float,
    "turn": int,
    **dict.fromkeys(("anony", "masked", "recognised"), {"True": True, "False": False}.__getitem__),
}


def encode_text(text: str) -> str:
    """A text on one line that no spreadsheet takes for a formula; `decode_text` gives it back."""
    line = "".join(_ESCAPES.get(character, character) for character in text)
    return "'" + line if line.lstrip(" ").startswith(_FORMULA) else line


def decode_text(line: str) -> str:
    """What `encode_text` was given."""
    line = line.removeprefix("'")
    found, characters = [], iter(line)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            found.append(_UNESCAPES.get(escaped, "\\" + escaped))
        else:
            found.append(character)
    return "".join(found)


def vote_line(vote: Vote) -> str:
    """The vote's row, without a newline."""
    values = [encode_text(str(getattr(vote, column))) for column in COLUMNS]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(values)
    return stream.getvalue()


def parse_vote(line: str, path: Path, number: int) -> Vote:
    """The vote on a line; raises StudioError naming file, line and column."""
    row = next(csv.reader([line], strict=True), [])
    if re.fullmatch(r"v\d+", row[-1] if row else "") and row[-1] != VERSION:
        raise StudioError(
            f"{path}, line {number}: is of version {row[-1]}, this studio's is {VERSION}; read the "
            "file with the studio that wrote it"
        )
    if len(row) != len(COLUMNS) or row[-1] != VERSION:
        raise StudioError(
            f"{path}, line {number}: {len(row)} columns, expected {len(COLUMNS)} that end with "
            f'"{VERSION}"; restore the file as the studio wrote it'
        )
    values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    for column, value in values.items():
        if column not in _PARSE:
            values[column] = decode_text(value)
        else:
            try:
                values[column] = _PARSE[column](value)
            except (ValueError, KeyError) as error:
                raise StudioError(
                    f'{path}, line {number}: {column} is "{value}", which it cannot be; restore '
                    "the file as the studio wrote it"
                ) from error
    return Vote(**values)


def check_header(line: str, path: Path) -> None:
    """Raise StudioError unless the first line is this version's header."""
    if line.removeprefix("\ufeff") == HEADER:
        return
    names = next(csv.reader([line]), [])
    if names[-1:] == ["version"]:
        odd = ", ".join(sorted(set(names) ^ set(COLUMNS))) or "their order"
        raise StudioError(
            f"{path}: written by another version of the studio, whose columns are not those of "
            f"{VERSION} ({odd}); read it with the studio that wrote it"
        )
    raise StudioError(f"{path}: is no file of the studio's ratings; restore a copy")


def append_votes(folder: Path, votes: list[Vote]) -> None:
    """Store votes; returns when they are safe on disk. Hold the folder's lock."""
    path = folder / FILE
    header = [] if path.exists() and path.stat().st_size > 0 else [HEADER]
    append(path, [*header, *map(vote_line, votes)])


def scores_json(scores: dict[str, int]) -> str:
    """Scores as their column holds them."""
    return json.dumps(scores, sort_keys=True) if scores else ""
