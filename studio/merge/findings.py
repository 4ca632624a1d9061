"""What preflight finds: problems, which stop a merge, and warnings, which do not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from studio.errors import StudioError

REMEDY = (
    "merge by token instead of by row: give every stage tokenizer_source: base (only the base's "
    "tokens), union (everyone's) or one of its models"
)


class VocabularyProblem(str):
    """A problem that merging by token mends: the sources' rows do not mean the same tokens."""


@dataclass(slots=True)
class Findings:
    """Problems and warnings, each a sentence for the user."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, others: "Findings") -> None:
        """Take over what was found elsewhere."""
        self.problems += others.problems
        self.warnings += others.warnings

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What ends the block as a StudioError is a problem like any other."""
        try:
            yield
        except StudioError as error:
            self.problems.append(str(error))
