"""The sources' vocabularies beside each other: what preflight says of them and makes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.merge.findings import Findings
from studio.merge.recipe import Recipe
from studio.merge.tensors import rows_of
from studio.merge.tokens.alignment import SHOWN, Alignment, Token, align, examples, tokens_of
from studio.merge.tokens.vocabulary import Vocabulary, read_vocabulary
from studio.weights.checkpoint import Checkpoint

LISTED = 8  # tokens of a model that are named
COUNTS = {"rows": "rows", "tokens": "tokens", "lacks": "lacks", "moved": "at other ids"}


def vocabulary_table(
    folders: Mapping[str, Path], rows: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    """For each model: its rows, its tokens, how many it lacks, and what it has that others lack.

    `moved`: how many of its tokens have another id in the first model. The numbers are None where
    no file tells the tokens. At most LISTED `own` tokens are named, of `owns`. Raises StudioError
    for a damaged tokenizer.
    """
    known = {model: read_vocabulary(folder) for model, folder in folders.items()}
    held = {m: set(v.by_id.values()) for m, v in known.items() if v is not None}
    first = next((v for v in known.values() if v is not None), Vocabulary({}))
    ids = {token: number for number, token in first.by_id.items()}
    everyone = set().union(*held.values())
    common = everyone.intersection(*held.values())
    table: list[dict[str, Any]] = []
    for model, vocabulary in known.items():
        own = [] if vocabulary is None else sorted(vocabulary.by_id.items())
        own = [(number, token) for number, token in own if token not in common]
        table.append(
            {
                "model": model,
                "rows": rows.get(model),
                "tokens": None if vocabulary is None else len(held[model]),
                "lacks": None if vocabulary is None else len(everyone - held[model]),
                "moved": None if vocabulary is None else _moved(vocabulary, ids),
                "owns": len(own),
                "own": [{"id": number, "token": token} for number, token in own[:LISTED]],
            }
        )
    return table


def _moved(vocabulary: Vocabulary, ids: Mapping[str, int]) -> int:
    return sum(ids.get(token, number) != number for number, token in vocabulary.by_id.items())


def table_text(table: Sequence[Mapping[str, Any]]) -> str:
    """`vocabulary_table` in lines and columns."""
    lines = [["model", *COUNTS.values(), "has, and some other lacks"]]
    for entry in table:
        own = ", ".join(f"{item['token']!r} ({item['id']})" for item in entry["own"][:SHOWN])
        more = f" and {entry['owns'] - SHOWN:,} more" if entry["owns"] > SHOWN else ""
        counts = ["?" if entry[key] is None else f"{entry[key]:,}" for key in COUNTS]
        lines.append([str(entry["model"]), *counts, own + more or "–"])
    widths = [max(len(line[column]) for line in lines) for column in range(1 + len(COUNTS))]
    shown = []
    for name, *counts, own in lines:
        cells = [name.ljust(widths[0])]
        cells += [count.rjust(width) for count, width in zip(counts, widths[1:], strict=True)]
        shown.append("  ".join(["  ", *cells, own]))
    return "\n".join(shown)


def alignment_of(recipe: Recipe, sources: Sequence[Checkpoint], found: Findings) -> Alignment:
    """The alignment of a recipe that merges by token; adds warnings to `found`.

    A source whose tokens no file tells is taken to have the base's, as mergekit does. Raises
    StudioError if the base is such a one, or a stage cannot be aligned.
    """
    known = {source.label: read_vocabulary(source.path) for source in sources}
    base = known[recipe.base]
    if base is None:
        raise StudioError(
            f"{recipe.base}: neither tokenizer.json nor a SentencePiece tokenizer.model, so its "
            "rows cannot be told apart by token; add the tokenizer, or merge row by row (leave "
            "tokenizer_source out)"
        )
    tokens: dict[str, tuple[Token, ...]] = {}
    for source in sources:
        vocabulary = known[source.label]
        if vocabulary is None:
            found.warnings.append(
                f"{source.label} ships no tokenizer; its rows are taken for those of {recipe.base}"
            )
        tokens[source.label] = tokens_of(vocabulary or base, rows_of(source))
        found.warnings += _without_rows(source, vocabulary)
    return align(recipe, tokens)


def _without_rows(source: Checkpoint, vocabulary: Vocabulary | None) -> list[str]:
    rows = rows_of(source)
    beyond = [] if vocabulary is None else [t for n, t in vocabulary.by_id.items() if n >= rows]
    if not beyond:
        return []
    return [
        f"{source.label} has {rows:,} rows, and its tokenizer {examples(beyond)} tokens beyond "
        "them; these count as missing there"
    ]
