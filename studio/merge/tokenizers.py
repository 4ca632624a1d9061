"""Do the sources' tokenizers give the same ids the same meaning?"""

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from studio.errors import StudioError
from studio.weights.strict_json import shown

SHOWN = 3
# What reading a file of unexpected structure raises.
MALFORMED = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


def vocabulary(folder: Path) -> dict[int, str] | None:
    """The tokens by id, from tokenizer.json; None where the model ships none.

    Raises StudioError for a file that is not a tokenizer.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        tokens = data["model"]["vocab"]
        if isinstance(tokens, Mapping):
            by_id = {int(number): token for token, number in tokens.items()}
        else:  # unigram models keep a list of (token, score)
            by_id = {number: entry[0] for number, entry in enumerate(tokens)}
        by_id |= {int(entry["id"]): entry["content"] for entry in data.get("added_tokens", [])}
    except MALFORMED as error:
        raise StudioError(
            f"{path}: this is not a tokenizer file ({shown(error)}); download it again"
        ) from error
    return by_id


def compare_tokenizers(folders: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Problems and warnings: ids that mean different tokens, and sources that cannot be compared.

    Sources without tokenizer.json are compared by the bytes of tokenizer.model.
    """
    problems, warnings = [], []
    known = {name: vocabulary(folder) for name, folder in folders.items()}
    for one, other in combinations(folders, 2):
        left, right = known[one], known[other]
        if left is None or right is None:
            files = [folders[name] / "tokenizer.model" for name in (one, other)]
            if not (all(f.is_file() for f in files) and _same_bytes(*files)):
                warnings.append(
                    f"the tokenizers of {one} and {other} cannot be compared (no tokenizer.json "
                    "or equal tokenizer.model); make sure that equal ids mean equal tokens"
                )
            continue
        clashes = [i for i in sorted(left.keys() & right.keys()) if left[i] != right[i]]
        if clashes:
            shown = ", ".join(f"{i} is {left[i]!r} / {right[i]!r}" for i in clashes[:SHOWN])
            problems.append(
                f"the tokenizers of {one} and {other} give {len(clashes)} ids different meanings "
                f"({shown}): merging by row would mix unrelated tokens; use sources of one "
                "tokenizer, or allow it (--allow tokenizer)"
            )
        elif len(left) != len(right):
            warnings.append(f"{one} has {len(left)} tokens, {other} has {len(right)}")
    return problems, warnings


def _same_bytes(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
