"""The one exception that people are meant to read."""

from collections.abc import Sequence


class StudioError(Exception):
    """Bad input, told in one sentence: what is wrong, which value, and how to mend it.

    Everything that catches it shows the text as it is, without a traceback. A bug is never a
    StudioError.
    """

    @classmethod
    def listing(cls, headline: str, problems: Sequence[str]) -> "StudioError":
        """One error that names every problem at once, so that all can be mended in one go."""
        if len(problems) == 1:
            return cls(problems[0])
        return cls(
            "\n".join([f"{headline} ({len(problems)} problems):", *(f"- {p}" for p in problems)])
        )


def nearest(word: str, known: Sequence[str]) -> str:
    """`' (did you mean "x"?)'` for the closest known word, or an empty string if none is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""
