"""Do the sources' tokenizers give the same ids the same meaning?"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from studio.merge.tokens.vocabulary import read_vocabulary

SHOWN = 3
REMEDY = (
    "merge by token instead of by row: give every stage tokenizer_source: base (only the base's "
    "tokens), union (everyone's) or one of its models"
)


class VocabularyProblem(str):
    """A problem that merging by token mends: the sources' rows do not mean the same tokens."""


def compare_tokenizers(folders: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Problems and warnings: ids of two meanings, and sources that cannot be compared."""
    problems: list[str] = []
    warnings: list[str] = []
    known = {name: read_vocabulary(folder) for name, folder in folders.items()}
    for one, other in combinations(folders, 2):
        first, second = known[one], known[other]
        if first is None or second is None:
            files = [folders[name] / "tokenizer.model" for name in (one, other)]
            if not (all(f.is_file() for f in files) and _same_bytes(*files)):
                warnings.append(
                    f"the tokenizers of {one} and {other} cannot be compared (no tokenizer.json "
                    "or equal tokenizer.model); make sure that equal ids mean equal tokens"
                )
            continue
        left, right = first.by_id, second.by_id
        clashes = [i for i in sorted(left.keys() & right.keys()) if left[i] != right[i]]
        if clashes:
            shown = ", ".join(f"{i} is {left[i]!r} / {right[i]!r}" for i in clashes[:SHOWN])
            problems.append(
                VocabularyProblem(
                    f"the tokenizers of {one} and {other} give {len(clashes)} ids different "
                    f"meanings ({shown}): merging by row would mix unrelated tokens; use sources "
                    "of one tokenizer, merge by token (tokenizer_source: base or union), or allow "
                    "it (--allow tokenizer)"
                )
            )
        elif len(left) != len(right):
            warnings.append(f"{one} has {len(left)} tokens, {other} has {len(right)}")
    return problems, warnings


def _same_bytes(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
