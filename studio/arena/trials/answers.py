"""What the models answered: one record a line in answers.jsonl, appended as they come.

Answers are stored, never made again to audit a vote: equal seeds do not give equal text on other
machines, batch sizes or tensor parallel sizes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from studio.durable import Follower, json_record
from studio.errors import StudioError

FILE = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class Generated:
    """What an engine gives for one prompt.

    `finish_reason`: "stop" (the model ended it) or "length" (cut off at the token limit); with
    any other the answer is not taken. `seconds`: request to last token. `left_out`: how many of
    the conversation's oldest messages the context had no room for. `sent`: the sampling parameters
    as the engine got them, where they are more than was asked (stop strings of the format).
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    left_out: int = 0
    sent: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """Which answer: a model's label, a prompt's id, and the number of the draw from 0."""

    model: str
    prompt: str
    draw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer and where it comes from.

    `identity`: what is known of the model (fingerprint, recipe, dtype, quantisation, engine).
    `prompt_format`: the chat template used. `sampling`: every parameter sent, `seed` among them.
    `messages_hash`: of the conversation as it was sent. `made`: UTC, ISO 8601.
    """

    model: str
    prompt: str
    draw: int
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    left_out: int
    seed: int
    sampling: Mapping[str, Any]
    prompt_format: str
    identity: Mapping[str, str]
    messages_hash: str
    made: str
    app_version: str

    @property
    def key(self) -> AnswerKey:
        """Which answer this is."""
        return AnswerKey(self.model, self.prompt, self.draw)

    @property
    def hash(self) -> str:
        """32 hex digits of the text, by which a vote names the answer it saw."""
        return text_hash(self.text)

    def as_data(self) -> dict[str, Any]:
        """The record for answers.jsonl."""
        return asdict(self)


def text_hash(text: str) -> str:
    """32 hex digits of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_FIELDS = {each.name for each in fields(Answer)}


def read_answers(path: Path) -> dict[AnswerKey, Answer]:
    """Every answer of a file; of two with the same key the first counts, as votes may name it."""
    found: dict[AnswerKey, Answer] = {}
    for number, line in enumerate(Follower(path).new_lines(), start=1):
        record = json_record(line, path, number)
        if record.keys() != _FIELDS:
            odd = sorted(record.keys() ^ _FIELDS)
            raise StudioError(
                f"{path}, line {number}: missing or unknown: {', '.join(map(str, odd))}; the file "
                "was written by another version of the studio"
            )
        answer = Answer(**record)
        found.setdefault(answer.key, answer)
    return found


def missing(keys: Iterable[AnswerKey], found: Mapping[AnswerKey, Answer]) -> list[AnswerKey]:
    """Those keys for which there is no answer yet, in order."""
    return [key for key in keys if key not in found]
