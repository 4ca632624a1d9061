"""The table of checks: for each name its kind, its arguments, and a small pure function."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from studio.arena.checks import text
from studio.arena.checks.arguments import (
    Argument,
    a_text,
    among,
    letter,
    place,
    texts,
    whole,
)
from studio.arena.checks.language import LANGUAGES, language_of

KINDS = (
    "length", "format", "keywords", "position", "case", "punctuation", "language", "json", "steps",
)  # fmt: skip
Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """A check: `test` says whether an answer passes, or if `counts`, how many of something there
    are (a list: of each part, all of which must be right)."""

    kind: str
    test: Callable[[str, Arguments], bool | int | list[int]]
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    counts: bool = False


_TEXT, _WORDS, _PLACE = {"text": Argument(a_text)}, {"words": Argument(texts)}, Argument(place)
_KEY = {"key": Argument(a_text, required=False)}
_JSON = {
    "keys": Argument(texts, required=False),
    "type": Argument(among("object", "array"), required=False),
}


def _nth(parts: list[str], n: int) -> str:
    """The n-th part, empty if there are not so many."""
    at = n - 1 if n > 0 else n
    return parts[at] if -len(parts) <= at < len(parts) else ""


def _includes(answer: str, words: list[str]) -> bool:
    return all(text.count_phrase(answer, word) for word in words)


def _sections(answer: str, a: Arguments) -> int:
    pattern = rf"^[\s*_#]*{re.escape(a['label'])}\s+(\d{{1,4}})\b"
    found = [int(n) for n in re.findall(pattern, answer, re.MULTILINE | re.IGNORECASE)]
    return len(found) if found == list(range(1, len(found) + 1)) else 0


def _highlights(answer: str, a: Arguments) -> int:
    bold = r"\*\*[^\s*](?:[^*\n]*[^\s*])?\*\*"
    single = r"(?<!\*)\*[^\s*](?:[^*\n]*[^\s*])?\*(?!\*)"
    return len(re.findall(f"{bold}|{single}", answer))


def _parts(answer: str, a: Arguments) -> int:
    parts = answer.split(a["separator"])
    return len(parts) if all(part.strip() for part in parts) else 0


def _table(answer: str, a: Arguments) -> bool:
    rows = [line for line in text.lines(answer) if line.startswith("|") and line.endswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows}
    rules = [n for n, row in enumerate(rows) if re.fullmatch(r"[|\s:-]+", row)]
    if widths != {a["columns"]} or rules != [1]:
        return False
    return "rows" not in a or len(rows) - 2 == a["rows"]


def _title(answer: str, a: Arguments) -> bool:
    return bool(re.match(r"#{1,6} +\S.*|<<[^\n<>]*\w[^\n<>]*>>\s*$", answer, re.MULTILINE))


def _quoted(answer: str, a: Arguments) -> bool:
    return len(answer) > 2 and (answer[0], answer[-1]) in (('"', '"'), ("“", "”"), ("„", "“"))


def _postscript(answer: str, a: Arguments) -> bool:
    marker = re.escape(a.get("marker", "P.S."))
    last = text.lines(answer)[-1:]
    return bool(last and re.match(rf"{marker}\s*:?\s*\S", last[0].lstrip("*_ "), re.IGNORECASE))


def _speakers(answer: str, a: Arguments) -> bool:
    names = "|".join(map(re.escape, a["names"]))
    spoken = [re.match(rf"[*_]*({names})[*_]*:[*_]*\s*\S", line) for line in text.lines(answer)]
    heard = {found[1] for found in spoken if found}
    return None not in spoken and heard == set(a["names"])


def _acrostic(answer: str, a: Arguments) -> bool:
    first = [re.sub(r"[\W_]+", "", line)[:1] for line in text.lines(answer)]
    return bool("".join(first).casefold() == a["word"].casefold())


def _has_case(answer: str, is_wrong: Callable[[str], bool]) -> bool:
    return any(c.isalpha() for c in answer) and not any(map(is_wrong, answer))


def _capital_words(answer: str, a: Arguments) -> int:
    return sum(len(word) > 1 and word.isupper() for word in text.words(answer))


def _lines_capitalised(answer: str, a: Arguments) -> bool:
    starts = [re.search(r"[^\W\d_]", line) for line in text.lines(answer)]
    return bool(starts) and all(start and start[0].isupper() for start in starts)


def _sentences_end_with(answer: str, a: Arguments) -> bool:
    found = text.sentences(answer)
    return bool(found) and all(s.rstrip("\"'”’»)*_ ").endswith(a["mark"]) for s in found)


def _read_json(answer: str) -> Any:
    """The value, or None if it is not JSON (a bare `null` counts as none, too)."""
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?```", answer, re.DOTALL)

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(fenced[1] if fenced else answer, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None  # the answer is simply not JSON, which is what is asked here


def _json(answer: str, a: Arguments) -> bool:
    value = _read_json(answer)
    if "keys" in a and not (isinstance(value, dict) and set(a["keys"]) <= set(value)):
        return False
    kinds: dict[str, type] = {"object": dict, "array": list}
    return value is not None and isinstance(value, kinds.get(a.get("type", ""), object))


def _json_items(answer: str, a: Arguments) -> int | list[int]:
    value = _read_json(answer)
    if "key" in a:
        value = value.get(a["key"]) if isinstance(value, dict) else None
    return len(value) if isinstance(value, list) else []


def _in_order(answer: str, a: Arguments) -> bool:
    rest = answer
    for word in a["words"]:
        found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", rest, re.IGNORECASE)
        if not found:
            return False
        rest = rest[found.end() :]
    return True


def _words_each(parts: Callable[[str], list[str]]) -> Callable[[str, Arguments], list[int]]:
    return lambda answer, a: [len(text.words(part)) for part in parts(answer)]


def _count(kind: str, test: Callable[[str, Arguments], Any], **arguments: Argument) -> Check:
    return Check(kind, test, arguments, counts=True)


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "words": _count("length", lambda t, a: len(text.words(t))),
        "sentences": _count("length", lambda t, a: len(text.sentences(t))),
        "paragraphs": _count("length", lambda t, a: len(text.paragraphs(t))),
        "lines": _count("length", lambda t, a: len(text.lines(t))),
        "characters": _count("length", lambda t, a: len(t)),
        "words_per_line": _count("length", _words_each(text.lines)),
        "words_per_sentence": _count("length", _words_each(text.sentences)),
        "words_per_paragraph": _count("length", _words_each(text.paragraphs)),
        "bullets": _count("format", lambda t, a: len(text.bullets(t))),
        "headings": _count("format", lambda t, a: len(re.findall(r"(?m)^#{1,6} +\S", t))),
        "sections": _count("format", _sections, label=Argument(a_text)),
        "highlights": _count("format", _highlights),
        "placeholders": _count("format", lambda t, a: len(re.findall(r"\[[^\[\]\n]+\]", t))),
        "parts": _count("format", _parts, separator=Argument(a_text)),
        "table": Check(
            "format", _table, {"columns": Argument(whole), "rows": Argument(whole, False)}
        ),
        "title": Check("format", _title),
        "quoted": Check("format", _quoted),
        "postscript": Check("format", _postscript, {"marker": Argument(a_text, False)}),
        "speakers": Check("format", _speakers, {"names": Argument(texts)}),
        "one_of": Check("format", lambda t, a: t in a["options"], {"options": Argument(texts)}),
        "is": Check("format", lambda t, a: t == a["text"], _TEXT),
        "includes": Check("keywords", lambda t, a: _includes(t, a["words"]), _WORDS),
        "excludes": Check(
            "keywords", lambda t, a: not any(text.count_phrase(t, w) for w in a["words"]), _WORDS
        ),
        "keyword_count": _count(
            "keywords", lambda t, a: text.count_phrase(t, a["word"]), word=Argument(a_text)
        ),
        "letter_count": _count(
            "keywords", lambda t, a: t.lower().count(a["letter"].lower()), letter=Argument(letter)
        ),
        "starts_with": Check("position", lambda t, a: text.begins_with(t, a["text"]), _TEXT),
        "ends_with": Check("position", lambda t, a: text.closes_with(t, a["text"]), _TEXT),
        "sentence_includes": Check(
            "position",
            lambda t, a: _includes(_nth(text.sentences(t), a["sentence"]), a["words"]),
            {"sentence": _PLACE, **_WORDS},
        ),
        "sentence_starts_with": Check(
            "position",
            lambda t, a: text.begins_with(_nth(text.sentences(t), a["sentence"]), a["text"]),
            {"sentence": _PLACE, **_TEXT},
        ),
        "paragraph_starts_with": Check(
            "position",
            lambda t, a: text.begins_with(_nth(text.paragraphs(t), a["paragraph"]), a["text"]),
            {"paragraph": _PLACE, **_TEXT},
        ),
        "acrostic": Check("position", _acrostic, {"word": Argument(a_text)}),
        "lowercase": Check("case", lambda t, a: _has_case(t, str.isupper)),
        "uppercase": Check("case", lambda t, a: _has_case(t, str.islower)),
        "capital_words": _count("case", _capital_words),
        "lines_capitalised": Check("case", _lines_capitalised),
        "without": Check(
            "punctuation",
            lambda t, a: bool(t) and not set(t) & set(a["characters"]),
            {"characters": Argument(a_text)},
        ),
        "mark_count": _count("punctuation", lambda t, a: t.count(a["mark"]), mark=Argument(a_text)),
        "sentences_end_with": Check("punctuation", _sentences_end_with, {"mark": Argument(a_text)}),
        "language": Check(
            "language", lambda t, a: language_of(t) == a["is"], {"is": Argument(among(*LANGUAGES))}
        ),
        "json": Check("json", _json, _JSON),
        "json_items": _count("json", _json_items, **_KEY),
        "numbered": _count(
            "steps",
            lambda t, a: text.numbered(t, a.get("label", "")),
            label=Argument(a_text, False),
        ),
        "in_order": Check("steps", _in_order, _WORDS),
    }
)
