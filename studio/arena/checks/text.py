"""Counting in a text: its words, sentences, paragraphs, lines and lists, as checks mean them."""

import re

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’-][^\W_]+)*")
# The dot after these does not end a sentence. "No." would, more often than not.
_SHORT = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|vs|etc|e\.g|i\.e|z\.B|bzw|ca|[A-Z])\.$")
_END = re.compile(r"[.!?…]+[\"'”’»)\]*_]*(?=\s|$)|[。！？]+[」』”]*")
_MARKER = re.compile(r"^\s*(?:[-*•+]|\d+[.)]|#{1,6}|>)\s+", re.MULTILINE)
_RULE = re.compile(r"^\s*(?:\*\s*){3,}$|^\s*(?:-\s*){3,}$|^\s*(?:_\s*){3,}$", re.MULTILINE)
_BULLET = re.compile(r"^\s*[-*•+]\s+\S", re.MULTILINE)
_EDGE = " \t\n\"'“”‘’«»*_`"


def words(text: str) -> list[str]:
    """The words: runs of letters and digits, joined by apostrophes and hyphens.

    A Chinese character or Japanese kana counts as one word.
    """
    return _WORD.findall(text)


def lines(text: str) -> list[str]:
    """The lines that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    """The blocks between blank lines; a line of *** or --- also parts them and is none."""
    blocks = re.split(r"\n\s*\n", _RULE.sub("\n", text))
    return [block.strip() for block in blocks if block.strip()]


def sentences(text: str) -> list[str]:
    """The sentences: a blank line, or . ! ? … before a space ends one.

    The dot of a known abbreviation or an initial does not, nor does a mark that is followed by a
    small letter (“Stop!” she said), unless the text has no capitals at all. A heading or list item
    without a mark belongs to what follows it in its paragraph.
    """
    has_capitals = any(letter.isupper() for letter in text)
    found: list[str] = []
    for block in paragraphs(_MARKER.sub("", text)):
        start = 0
        for end in _END.finditer(block):
            rest = block[end.end() :].lstrip()
            sentence = block[start : end.end()].strip()
            opening = rest.lstrip(_EDGE)[:1]
            if not rest or not (_SHORT.search(sentence) or (has_capitals and opening.islower())):
                found.append(sentence)
                start = end.end()
        if words(block[start:]):
            found.append(block[start:].strip())
    return [sentence for sentence in found if words(sentence)]


def bullets(text: str) -> list[str]:
    """The lines that begin with -, *, • or + and a space; rules such as *** are none."""
    return _BULLET.findall(_RULE.sub("", text))


def numbered(text: str, label: str = "") -> int:
    """How many lines are numbered 1, 2, 3 … in order ("1." or "1)", with a label "Step 1:").

    0 if a number is missing, doubled or out of order. Marks of emphasis and headings are allowed.
    """
    before = rf"{re.escape(label)}\s+" if label else ""
    pattern = rf"^[\s*_#]*{before}(\d{{1,4}})[.):][\s*_]*\S"
    found = [int(n) for n in re.findall(pattern, text, re.MULTILINE | re.IGNORECASE)]
    return len(found) if found == list(range(1, len(found) + 1)) else 0


def count_phrase(text: str, phrase: str) -> int:
    """How often a word or phrase occurs, whole and in any case: "art" is not in "start"."""
    body = r"\s+".join(map(re.escape, phrase.split()))
    before, after = (
        (r"(?<!\w)" if phrase[0].isalnum() else ""),
        (r"(?!\w)" if phrase[-1].isalnum() else ""),
    )
    return len(re.findall(before + body + after, text, re.IGNORECASE))


def begins_with(text: str, start: str) -> bool:
    """Whether the text begins with `start`, in any case, behind quotes and marks of emphasis.

    A start that ends in a letter must end a word there.
    """
    stripped, wanted = text.lstrip(_EDGE).casefold(), start.strip().casefold()
    rest = stripped[len(wanted) :][:1]
    return stripped.startswith(wanted) and not (wanted[-1].isalnum() and rest.isalnum())


def closes_with(text: str, end: str) -> bool:
    """Whether the text ends with `end`, in any case, before quotes and marks of emphasis.

    Where `end` ends in a letter, closing punctuation may follow it; where it begins with one, a
    word must begin there.
    """
    wanted = end.strip().casefold()
    closing = _EDGE + ".!?…。！？,;:)" if wanted[-1].isalnum() else _EDGE
    stripped = text.casefold().rstrip(_EDGE)
    if not stripped.endswith(wanted):
        stripped = stripped.rstrip(closing)
    before = stripped[: -len(wanted)][-1:]
    return stripped.endswith(wanted) and not (wanted[0].isalnum() and before.isalnum())
