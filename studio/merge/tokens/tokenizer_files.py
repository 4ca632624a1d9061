"""The tokenizer of a merge by token: a source's files, with just the tokens that have a row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.merge.tokens.alignment import Alignment, examples
from studio.merge.tokens.vocabulary import ADDED, CONFIG, SENTENCEPIECE, TOKENIZER, read_vocabulary
from studio.weights.strict_json import read_object

SPECIAL = "special_tokens_map.json"
PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False) | {"normalized": True}


def changed_files(sources: Mapping[str, Path], alignment: Alignment) -> dict[str, dict[str, Any]]:
    """The files of the result's tokenizer that differ from those of `alignment.origin`.

    `sources`: every source's folder. Raises StudioError where the files cannot say what is needed:
    trained tokens have no row, or tokens must be added and there is no tokenizer.json.
    """
    folder = sources[alignment.origin]
    vocabulary = read_vocabulary(folder)
    if vocabulary is None:  # the base has one, and all that has none is taken for the base
        return {}
    tokens = alignment.tokens
    wanted = {row: token for row, token in enumerate(tokens) if isinstance(token, str)}
    extra = {row: t for row, t in wanted.items() if vocabulary.by_id.get(row) != t}
    gone = {n: t for n, t in vocabulary.by_id.items() if n >= len(tokens) or n in extra}
    if not extra and not gone:
        return {}
    if trained := [t for t in gone.values() if t not in vocabulary.added]:
        raise StudioError(
            f"{folder}: the tokenizer has {examples(trained)} trained tokens for which the model "
            "has no row; it is another model's tokenizer"
        )
    if extra and not (folder / TOKENIZER).is_file():
        raise StudioError(
            f"{folder}: {examples(list(extra.values()))} tokens of other models must be added, but "
            "there is no tokenizer.json to add them to; use tokenizer_source: base, or save the "
            "tokenizer with transformers, which makes one"
        )
    settings = _settings(sources, set(extra.values()))
    added = {row: PLAIN | settings.get(token, {}) for row, token in extra.items()}
    return _Change(folder, extra, set(gone.values()) - set(extra.values()), added).files()


def _settings(sources: Mapping[str, Path], tokens: set[str]) -> dict[str, dict[str, Any]]:
    """How the tokens are to be found in a text, by the first source that had to add them."""
    found: dict[str, dict[str, Any]] = {}
    for folder in sources.values():
        vocabulary = read_vocabulary(folder)
        for token in tokens & (vocabulary.added.keys() if vocabulary else set()):
            found.setdefault(token, vocabulary.added[token] if vocabulary else {})
    return found


class _Change:
    """Tokens to add, by their row, and tokens to take away, in all the files that list any."""

    def __init__(
        self,
        folder: Path,
        extra: Mapping[int, str],
        gone: set[str],
        settings: Mapping[int, Mapping[str, Any]],
    ) -> None:
        self._folder, self._extra, self._gone, self._settings = folder, extra, gone, settings

    def files(self) -> dict[str, dict[str, Any]]:
        """The changed files by name."""
        found = {}
        for name, change in ((TOKENIZER, self._tokenizer), (CONFIG, self._config),
                             (SPECIAL, self._special), (ADDED, self._listed)):  # fmt: skip
            path = self._folder / name
            if path.is_file():
                found[name] = change(read_object(path))
        if self._extra and ADDED not in found and (self._folder / SENTENCEPIECE).is_file():
            found[ADDED] = self._listed({})  # for readers of tokenizer.model
        return found

    def _tokenizer(self, data: dict[str, Any]) -> dict[str, Any]:
        kept = [e for e in data.get("added_tokens", []) if e["content"] not in self._gone]
        kept = [e for e in kept if e["id"] not in self._extra]
        new = [
            {"id": row, "content": token, **self._settings[row]}
            for row, token in self._extra.items()
        ]
        return data | {"added_tokens": sorted([*kept, *new], key=lambda entry: entry["id"])}

    def _config(self, data: dict[str, Any]) -> dict[str, Any]:
        data = self._special(data)
        if entries := data.get("added_tokens_decoder"):
            kept = {n: e for n, e in entries.items() if e["content"] not in self._gone}
            new = {
                str(row): {"content": token, **self._settings[row]}
                for row, token in self._extra.items()
            }
            data["added_tokens_decoder"] = kept | new
        return data

    def _special(self, data: dict[str, Any]) -> dict[str, Any]:
        """Without roles for tokens that are gone: loaders would add these again, without a row."""
        kept = {}
        for key, value in data.items():
            if key.endswith("_token") and _content(value) in self._gone:
                continue
            if key == "additional_special_tokens" and isinstance(value, list):
                value = [token for token in value if _content(token) not in self._gone]
            kept[key] = value
        return kept

    def _listed(self, data: dict[str, Any]) -> dict[str, Any]:
        kept = {token: number for token, number in data.items() if token not in self._gone}
        return kept | {token: row for row, token in self._extra.items()}


def _content(token: object) -> str | None:
    """The text of a special token, which may be an object with settings."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None
