"""The one exception that people are meant to read."""

from collections.abc import Mapping, Sequence
from typing import Any


class StudioError(Exception):
    """Bad input, told in one sentence: what is wrong, which value, and how to mend it.

    Everything that catches it shows the text as it is, without a traceback. A bug is never a
    StudioError. `data`: what of it a program can show better than the text does, as plain JSON.
    """

    def __init__(self, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.data: Mapping[str, Any] = data or {}

    @classmethod
    def listing(
        cls, headline: str, problems: Sequence[str], data: Mapping[str, Any] | None = None
    ) -> "StudioError":
        """One error that names every problem at once, so that all can be mended in one go."""
        if len(problems) == 1:
            return cls(problems[0], data)
        lines = [f"{headline} ({len(problems)} problems):", *(f"- {p}" for p in problems)]
        return cls("\n".join(lines), data)


def nearest(word: str, known: Sequence[str]) -> str:
    """`' (did you mean "x"?)'` for the closest known word, or an empty string if none is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""
