"""Prompts: what the models of a trial are asked, and how their answers can be checked.

A file holds a list of entries: YAML (a list), JSONL (one object a line) or CSV (one row an entry).
An entry has these keys; those with a default may be left out, any other key is an error:

    id           letters, digits, dots, dashes, underscores; unique over all files loaded together
    category     the kind of task, a few words; results are told for each category
    prompt       the one user message of a single-turn prompt, or instead of it
    messages     a list of {role: user | assistant, content: text}: roles take turns, the last is
                 the user's, and only the answer to that one is judged; the first may be of either
    system       the system message (default: none)
    tags         a list of words (default: none)
    constraints  what can be checked by a machine; see arena/checks/constraints.py (default: none)
    max_tokens   the longest answer in tokens, 1 to 8192 (default: 512)
    language     the language of the answer, two letters (default: en)
    char, user   the names that {{char}} and {{user}} stand for in system and messages
    sealed       true: kept apart from tuning, for verdicts only (default: false)
    sensitive    true: adult or upsetting; only used by those who choose it (default: false)

In YAML, a long text that several entries share can be named once (content: &letter |) and repeated
(content: *letter). In CSV, messages and constraints are JSON and tags are split at semicolons.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from studio.arena.checks.constraints import Constraint
from studio.arena.prompts.prompt_files import Record, Where, read_records, records_of
from studio.errors import StudioError, nearest

MOST_PROMPTS = 2000
MOST_TOKENS = 8192
LONGEST_TEXT = 400_000
TOO_ALIKE = 0.8
Role = Literal["user", "assistant"]
_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")
_KEYS = (
    "id", "category", "prompt", "messages", "system", "tags", "constraints", "max_tokens",
    "language", "char", "user", "sealed", "sensitive",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """One entry of a prompt file, checked, with the names filled in.

    `char` and `user` are the names of the two sides, empty where the entry names none.
    """

    id: str
    category: str
    messages: tuple[Message, ...]
    system: str = ""
    tags: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    max_tokens: int = 512
    language: str = "en"
    char: str = ""
    user: str = ""
    sealed: bool = False
    sensitive: bool = False

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON takes it; `prompt_from_data` reads it back."""
        return {
            "id": self.id,
            "category": self.category,
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            "system": self.system,
            "tags": list(self.tags),
            "constraints": [constraint.as_data() for constraint in self.constraints],
            "max_tokens": self.max_tokens,
            "language": self.language,
            "char": self.char,
            "user": self.user,
            "sealed": self.sealed,
            "sensitive": self.sensitive,
        }

    @cached_property
    def _words(self) -> tuple[frozenset[str], frozenset[str]]:
        """The words of the last message, and those of all that comes before it."""
        before = " ".join([self.system, *(m.content for m in self.messages[:-1])])
        return _word_set(self.messages[-1].content), _word_set(before)

    def is_like(self, other: "Prompt") -> bool:
        """Whether the two ask nearly the same: four words of five are shared (Jaccard), both in
        the last message and in what comes before it."""
        pairs = zip(self._words, other._words, strict=True)
        return all(_likeness(mine, theirs) >= TOO_ALIKE for mine, theirs in pairs)


def load_prompts(*paths: Path) -> list[Prompt]:
    """The prompts of these files, in order.

    Raises StudioError, naming file and line, for whatever is wrong in them: an id given twice and
    a near-duplicate of another prompt too, be it in another of the files.
    """
    records = [record for path in paths for record in read_records(path)]
    return _all_of(records, ", ".join(map(str, paths)) or "no file")


def parse_prompts(text: str, origin: str) -> list[Prompt]:
    """The prompts in the text of a file called `origin`; raises as `load_prompts` does."""
    return _all_of(records_of(text, origin), origin)


def _all_of(records: Sequence[Record], origin: str) -> list[Prompt]:
    prompts: list[Prompt] = []
    seen: dict[str, str] = {}
    for record in records:
        prompt = _Reader(record).prompt()
        if prompt.id in seen:
            record.fail(("id",), f'"{prompt.id}" is also the id in {seen[prompt.id]}')
        alike = next((other for other in prompts if prompt.is_like(other)), None)
        if alike is not None:
            record.fail((), f'"{prompt.id}" asks nearly the same as "{alike.id}"; leave one out')
        seen[prompt.id] = f"{record.origin}, line {record.line}"
        prompts.append(prompt)
        if len(prompts) > MOST_PROMPTS:
            record.fail((), f"more than {MOST_PROMPTS:,} prompts; use fewer files at once")
    if not prompts:
        raise StudioError(f"{origin}: there are no prompts in it")
    return prompts


def prompt_from_data(data: object, origin: str, line: int = 1) -> Prompt:
    """The prompt that `as_data` gave, or one like it; raises StudioError naming `origin`."""
    return _Reader(Record(origin, line, data)).prompt()


def choose(
    prompts: Sequence[Prompt],
    *,
    sensitive: bool = False,
    sealed: bool | None = None,
    categories: Collection[str] | None = None,
) -> list[Prompt]:
    """Those prompts that fit: sensitive ones only if wished for, the sealed or the open split or
    (None) both, some categories or all."""
    return [
        prompt
        for prompt in prompts
        if (sensitive or not prompt.sensitive)
        and (sealed is None or prompt.sealed == sealed)
        and (categories is None or prompt.category in categories)
    ]


class _Reader:
    """Checks one record, key by key."""

    def __init__(self, record: Record) -> None:
        if not isinstance(record.values, dict):
            record.fail((), "expected an entry of keys and values")
        self.record = record
        self.values: dict[str, Any] = record.values
        for key in self.values:
            if key not in _KEYS:
                record.fail((key,), f"unknown key{nearest(key, _KEYS)}; known: {', '.join(_KEYS)}")

    def prompt(self) -> Prompt:
        """The prompt; raises StudioError with the line of what is wrong."""
        name, tokens = self.text("id"), self.values.get("max_tokens", 512)
        if not _ID.fullmatch(name):
            self.record.fail(
                ("id",), f"{name[:80]!r} cannot be an id: 1 to 80 letters, digits, dots, dashes"
            )
        if type(tokens) is not int or not 1 <= tokens <= MOST_TOKENS:
            self.record.fail(
                ("max_tokens",), f"{tokens!r} is not a whole number from 1 to {MOST_TOKENS}"
            )
        language = self.text("language", "en")
        if not re.fullmatch("[a-z]{2}", language):
            self.record.fail(("language",), f"{language[:20]!r}: two small letters, as in en")
        return Prompt(
            id=name,
            category=self.text("category"),
            messages=self.messages(),
            system=self.named(self.text("system", ""), ("system",)),
            tags=self.tags(),
            constraints=self.constraints(),
            max_tokens=tokens,
            language=language,
            char=self.text("char", ""),
            user=self.text("user", ""),
            sealed=self.switch("sealed"),
            sensitive=self.switch("sensitive"),
        )

    def text(self, key: str, default: str | None = None) -> str:
        if key not in self.values and default is None:
            self.record.fail((), f'"{key}" is missing')
        value = self.values.get(key, default)
        if value == "" == default:
            return ""
        return self.checked_text(value, (key,))

    def checked_text(self, value: object, where: Where) -> str:
        if not isinstance(value, str) or not value.strip():
            self.record.fail(where, f"expected text, found {str(value)[:40]!r}")
        if len(value) > LONGEST_TEXT:
            self.record.fail(where, f"longer than {LONGEST_TEXT:,} characters")
        return value.strip()

    def switch(self, key: str) -> bool:
        value = self.values.get(key, False)
        if type(value) is not bool:
            self.record.fail((key,), f"{str(value)[:40]!r} is neither true nor false")
        return value

    def listed(self, key: str) -> list[Any]:
        value = self.values.get(key, [])
        if not isinstance(value, list):
            self.record.fail((key,), f"expected a list, found {str(value)[:40]!r}")
        return value

    def tags(self) -> tuple[str, ...]:
        found = [self.checked_text(tag, ("tags", n)) for n, tag in enumerate(self.listed("tags"))]
        return tuple(found)

    def messages(self) -> tuple[Message, ...]:
        if ("prompt" in self.values) == ("messages" in self.values):
            self.record.fail((), 'needs either "prompt" or "messages"')
        if "prompt" in self.values:
            return (Message("user", self.named(self.text("prompt"), ("prompt",))),)
        found = [self.message(m, n) for n, m in enumerate(self.listed("messages"))]
        if not found or found[-1].role != "user":
            self.record.fail(("messages",), "the last message must be the user's")
        for n, (one, next_one) in enumerate(zip(found, found[1:], strict=False)):
            if one.role == next_one.role:
                self.record.fail(
                    ("messages", n + 1), f"two messages of the {one.role} in a row; join them"
                )
        return tuple(found)

    def message(self, value: object, n: int) -> Message:
        where: Where = ("messages", n)
        if not isinstance(value, dict) or set(value) != {"role", "content"}:
            self.record.fail(where, "a message has a role and a content, nothing else")
        if value["role"] not in ("user", "assistant"):
            self.record.fail(
                where, f'role is {str(value["role"])[:40]!r}; use user or assistant (or "system:")'
            )
        where = (*where, "content")
        return Message(value["role"], self.named(self.checked_text(value["content"], where), where))

    def named(self, text: str, where: Where) -> str:
        """The text with {{char}} and {{user}} replaced."""

        def name(found: re.Match[str]) -> str:
            key = found[1].lower()
            if key not in ("char", "user"):
                self.record.fail(
                    where, f"{found[0][:60]}: only {{{{char}}}} and {{{{user}}}} exist"
                )
            if not self.values.get(key):
                self.record.fail(where, f'{found[0]} needs a name: add "{key}:" to the entry')
            return self.text(key)

        return _PLACEHOLDER.sub(name, text)

    def constraints(self) -> tuple[Constraint, ...]:
        found: list[Constraint] = []
        for n, value in enumerate(self.listed("constraints")):
            try:
                constraint = Constraint.from_data(value)
            except StudioError as error:
                self.record.fail(("constraints", n), str(error))
            if constraint in found:
                self.record.fail(("constraints", n), "given twice; leave one out")
            found.append(constraint)
        return tuple(found)


def _word_set(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def _likeness(mine: frozenset[str], theirs: frozenset[str]) -> float:
    if not mine and not theirs:
        return 1.0
    shared = len(mine & theirs)
    return shared / (len(mine) + len(theirs) - shared)
