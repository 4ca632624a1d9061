"""The sources' vocabularies beside each other: what preflight says of them and makes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.merge.tensors import DIFFERENT, rows_of
from studio.merge.tokens.alignment import SHOWN, Alignment, Token, align, examples, tokens_of
from studio.merge.tokens.vocabulary import Vocabulary, read_vocabulary
from studio.weights.checkpoint import Checkpoint

LISTED = 8  # tokens of a model that are named
REMEDY = (
    "merge by token instead of by row: give every stage tokenizer_source: base (only the base's "
    "tokens), union (everyone's) or one of its models"
)


def vocabulary_table(
    folders: Mapping[str, Path], rows: Mapping[str, int | None]
) -> list[dict[str, Any]]:
    """For each model: its rows, its tokens, how many it lacks, and what it has that others lack.

    `tokens` is None where no file tells them. At most LISTED `own` tokens are named, of `owns`.
    """
    known = {model: read_vocabulary(folder) for model, folder in folders.items()}
    held = {m: set(v.by_id.values()) for m, v in known.items() if v is not None}
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
                "owns": len(own),
                "own": [{"id": number, "token": token} for number, token in own[:LISTED]],
            }
        )
    return table


def table_text(table: Sequence[Mapping[str, Any]]) -> str:
    """`vocabulary_table` in lines and columns."""
    lines = [["model", "rows", "tokens", "lacks", "has, and some other lacks"]]
    for entry in table:
        own = ", ".join(f"{item['token']!r} ({item['id']})" for item in entry["own"][:SHOWN])
        more = f" and {entry['owns'] - SHOWN:,} more" if entry["owns"] > SHOWN else ""
        counts = ["?" if entry[k] is None else f"{entry[k]:,}" for k in ("rows", "tokens", "lacks")]
        lines.append([str(entry["model"]), *counts, own + more or "–"])
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    shown = []
    for name, *counts, own in lines:
        cells = [name.ljust(widths[0])]
        cells += [count.rjust(width) for count, width in zip(counts, widths[1:], strict=True)]
        shown.append("  ".join(["  ", *cells, own]))
    return "\n".join(shown)


def add_table(
    folders: Mapping[str, Path], rows: Mapping[str, int | None], problems: list[str]
) -> dict[str, Any]:
    """Add to the problem of different vocabularies the remedy and a table; the latter as data."""
    table = vocabulary_table(folders, rows)
    at = next(number for number, text in enumerate(problems) if DIFFERENT in text)
    problems[at] += f"; {REMEDY}\n{table_text(table)}"
    return {"vocabularies": table}


def alignment_of(recipe: Recipe, sources: Sequence[Checkpoint], warnings: list[str]) -> Alignment:
    """The alignment of a recipe that merges by token; adds to `warnings`.

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
            warnings.append(
                f"{source.label} ships no tokenizer; its rows are taken for those of {recipe.base}"
            )
        tokens[source.label] = tokens_of(vocabulary or base, rows_of(source))
        warnings += _without_rows(source, vocabulary)
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
