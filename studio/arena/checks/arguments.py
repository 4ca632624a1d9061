"""How the arguments of checks are read; each reader raises ValueError saying what is wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Argument:
    """How to read an argument; `read` raises ValueError saying what is wanted."""

    read: Callable[[object], Any]
    required: bool = True


def whole(value: object) -> int:
    """A whole number, 0 or more."""
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError("use a whole number that is not negative")
    return value


def place(value: object) -> int:
    """Which of several: 1 is the first, -1 the last."""
    if type(value) is not int or value == 0 or abs(value) > 1000:
        raise ValueError("use 1 for the first, 2 for the second …, -1 for the last")
    return value


def a_text(value: object) -> str:
    """Text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("use text in quotes")
    return value


def texts(value: object) -> list[str]:
    """A list of different texts."""
    if not isinstance(value, list) or not value:
        raise ValueError("use a list of texts")
    found = [a_text(item) for item in value]
    if len(set(found)) < len(found):
        raise ValueError("one of them is given twice")
    return found


def letter(value: object) -> str:
    """One letter."""
    if not isinstance(value, str) or len(value) != 1 or not value.isalpha():
        raise ValueError("use one letter")
    return value


def among(*options: str) -> Callable[[object], str]:
    """A reader of one of these options."""

    def read(value: object) -> str:
        if value not in options:
            raise ValueError(f"use one of {', '.join(options)}")
        return str(value)

    return read


COUNTS = MappingProxyType(
    {name: Argument(whole, required=False) for name in ("exactly", "at_least", "at_most")}
)
