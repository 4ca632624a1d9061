"""Do the sources' tokenizers give the same ids the same meaning?"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from studio.merge.findings import Findings, VocabularyProblem
from studio.merge.tokens.vocabulary import read_vocabulary

SHOWN = 3


def compare_tokenizers(folders: Mapping[str, Path]) -> Findings:
    """Ids of two meanings are problems; sources that cannot be compared, or are longer, warnings.

    Raises StudioError for a damaged tokenizer.
    """
    found = Findings()
    unlike: dict[str, None] = {}
    known = {name: read_vocabulary(folder) for name, folder in folders.items()}
    for one, other in combinations(folders, 2):
        first, second = known[one], known[other]
        if first is None or second is None:
            files = [folders[name] / "tokenizer.model" for name in (one, other)]
            if not (all(f.is_file() for f in files) and _same_bytes(*files)):
                unlike |= dict.fromkeys((one, other))
            continue
        left, right = first.by_id, second.by_id
        clashes = [i for i in sorted(left.keys() & right.keys()) if left[i] != right[i]]
        if clashes:
            shown = ", ".join(f"{i} is {left[i]!r} / {right[i]!r}" for i in clashes[:SHOWN])
            found.problems.append(
                VocabularyProblem(
                    f"the tokenizers of {one} and {other} give {len(clashes)} ids different "
                    f"meanings ({shown}): merging by row would mix unrelated tokens; use sources "
                    "of one tokenizer, merge by token (tokenizer_source: base or union), or allow "
                    "it (--allow tokenizer)"
                )
            )
        elif len(left) != len(right):
            found.warnings.append(f"{one} has {len(left)} tokens, {other} has {len(right)}")
    if unlike:
        found.warnings.append(
            f"the tokenizers of {' and '.join(unlike)} cannot be compared (no tokenizer.json or "
            "equal tokenizer.model); make sure that equal ids mean equal tokens"
        )
    return found


def _same_bytes(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
