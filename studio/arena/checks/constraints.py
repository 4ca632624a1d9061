"""Constraints on an answer that a machine can check, after the taxonomy that IFEval introduced.

IFEval (Zhou et al. 2023, arXiv:2311.07911) sorts verifiable instructions by length, format,
keywords, position, case, punctuation and so on. In a prompt file a constraint is a name, or a name
with arguments:

    constraints:
      - words: {at_least: 60, at_most: 90}
      - includes: {words: [lantern, low tide]}
      - without: {characters: ","}
      - lowercase

Where COUNT stands, give `exactly`, or `at_least`, or `at_most`, or the last two. N counts from 1,
or from the end with -1, -2 … Arguments in [brackets] may be left out. Whole words are meant, and
capitals do not matter, unless a line says otherwise.

length       words COUNT; sentences COUNT; paragraphs COUNT; lines COUNT (not blank); characters
             COUNT; words_per_line COUNT, words_per_sentence COUNT, words_per_paragraph COUNT (each)
format       bullets COUNT; headings COUNT (# …); sections {label} COUNT (lines "LABEL 1", 2 …);
             highlights COUNT (*…* or **…**); placeholders COUNT ([…]); parts {separator} COUNT;
             table {columns, [rows]}; title (the first line is # … or <<…>>); quoted (the whole in
             double quotes); postscript {[marker: P.S.]}; speakers {names} (every line is NAME: …);
             one_of {options} and is {text} (the whole answer, capitals matter)
keywords     includes {words}; excludes {words}; keyword_count {word} COUNT; letter_count {letter}
             COUNT
position     starts_with {text}; ends_with {text}; sentence_includes {sentence: N, words};
             sentence_starts_with {sentence: N, text}; paragraph_starts_with {paragraph: N, text};
             acrostic {word} (first letters of the lines)
case         lowercase; uppercase; capital_words COUNT (wholly in capitals, two letters or more);
             lines_capitalised (every line begins with a capital)
punctuation  without {characters} (none of them); mark_count {mark} COUNT; sentences_end_with {mark}
language     language {is} (see language.py)
json         json {[keys], [type: object | array]} (the whole answer, a code fence is allowed);
             json_items {[key]} COUNT (length of the array, or of the one under the key)
steps        numbered {[label]} COUNT (1. 2. 3. … in order, or "Step 1: …" with label: Step);
             in_order {words} (all occur, one after the other)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.arena.checks.arguments import COUNTS
from studio.arena.checks.table import CHECKS, Check
from studio.errors import StudioError, nearest


@dataclass(frozen=True, slots=True)
class Constraint:
    """A named check with its arguments; made by `from_data`, which refuses what is not right."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_data(cls, data: object) -> "Constraint":
        """A constraint as prompt files write it; raises StudioError in one sentence."""
        if isinstance(data, str):
            data = {data: {}}
        if not isinstance(data, dict) or len(data) != 1:
            raise StudioError("a constraint is a name, or one name with its arguments in braces")
        name, arguments = next(iter(data.items()))
        if name not in CHECKS:
            raise StudioError(
                f'there is no constraint "{name}"{nearest(str(name), tuple(CHECKS))}; the names '
                "are listed in studio/arena/checks/constraints.py"
            )
        if not isinstance(arguments, dict):
            raise StudioError(f"{name}: write its arguments in braces, as in {{at_least: 3}}")
        return cls(name, _checked(name, CHECKS[name], arguments))

    def as_data(self) -> dict[str, Any]:
        """The constraint as prompt files write it."""
        return {self.name: dict(self.arguments)}

    @property
    def kind(self) -> str:
        """One of KINDS: length, format, keywords …"""
        return CHECKS[self.name].kind

    def __str__(self) -> str:
        inner = ", ".join(f"{key} {_shown(value)}" for key, value in self.arguments.items())
        return f"{self.name.replace('_', ' ')}{f': {inner}' if inner else ''}"

    def __hash__(self) -> int:
        return hash((self.name, str(self)))


@dataclass(frozen=True, slots=True)
class Result:
    """Whether an answer keeps a constraint; `found` is what was counted, empty if nothing was."""

    constraint: Constraint
    passed: bool
    found: str = ""


def check(constraints: Sequence[Constraint], answer: str) -> list[Result]:
    """One result for each constraint, in order; space around the answer does not count.

    An empty answer keeps none.
    """
    return [_result(constraint, answer.strip()) for constraint in constraints]


def _result(constraint: Constraint, answer: str) -> Result:
    entry, arguments = CHECKS[constraint.name], constraint.arguments
    if not answer:
        return Result(constraint, False, "nothing")
    if not entry.counts:
        return Result(constraint, bool(entry.test(answer, arguments)))
    found = entry.test(answer, arguments)
    counts = found if isinstance(found, list) else [found]
    low = arguments.get("exactly", arguments.get("at_least", 0))
    high = arguments.get("exactly", arguments.get("at_most", float("inf")))
    passed = bool(counts) and all(low <= count <= high for count in counts)
    span = sorted({min(counts), max(counts)}) if counts else ["nothing"]
    return Result(constraint, passed, " to ".join(map(str, span)))


def _checked(name: str, entry: Check, given: Mapping[str, object]) -> dict[str, Any]:
    readers = {**entry.arguments, **(COUNTS if entry.counts else {})}
    for key in given:
        if key not in readers:
            known = ", ".join(readers) or "it takes none"
            raise StudioError(f'{name} has no argument "{key}"; known: {known}')
    values = {}
    for key, reader in readers.items():
        if key in given:
            try:
                values[key] = reader.read(given[key])
            except ValueError as error:
                raise StudioError(f"{name}: {key} is {_shown(given[key])}; {error}") from error
        elif reader.required:
            raise StudioError(f'{name} needs the argument "{key}"')
    if entry.counts:
        _check_counts(name, values)
    return values


def _check_counts(name: str, values: Mapping[str, Any]) -> None:
    given = [key for key in COUNTS if key in values]
    if not given or ("exactly" in given and len(given) > 1):
        raise StudioError(f"{name} needs either exactly, or at_least, or at_most, or the last two")
    if values.get("at_least", 0) > values.get("at_most", float("inf")):
        raise StudioError(f"{name}: at_least {values['at_least']} is above {values['at_most']}")
    if values.get("at_least") == 0:
        raise StudioError(f"{name}: at_least 0 is always true; leave it out")


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f'"{text[:60]}"' if not isinstance(value, int) else text
