"""A model's special tokens, as its files tell them: which one begins a text, which end an answer.

A server that is told to heed no generation_config.json stops at the tokenizer's one end token. Chat
models often have a second (Llama 3's <|eot_id|>, ChatML's <|im_end|>) and would write on and on: so
their ids are sent with every request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from studio.chat_template import special_tokens
from studio.weights.strict_json import read_object


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """`begin`: the text of the begin token, None if there is none. `ids`: of all by their text.

    They print nothing, so as a stop string their text never comes.
    """

    begin: str | None = None
    ids: Mapping[str, int] = field(default_factory=dict)


def end_tokens(folder: Path) -> tuple[int, ...]:
    """The ids of generation_config.json, where there is none those of config.json, in order.

    Ids beyond the vocabulary are left out: no model can draw them, and vLLM refuses them.
    """
    config = read_object(folder / "config.json")
    file = folder / "generation_config.json"
    stated = (read_object(file) if file.is_file() else config).get("eos_token_id")
    rows = config.get("vocab_size")
    return tuple(
        sorted(
            token
            for token in (stated if isinstance(stated, list) else [stated])
            if type(token) is int and 0 <= token and not (type(rows) is int and token >= rows)
        )
    )


def tokens_of(folder: Path) -> SpecialTokens:
    """What the tokenizer's files tell."""
    entries = _object(folder / "tokenizer.json").get("added_tokens")
    if not isinstance(entries, list):
        older = _object(folder / "tokenizer_config.json").get("added_tokens_decoder")
        by_id = older.items() if isinstance(older, dict) else ()
        entries = [{**entry, "id": int(key)} for key, entry in by_id]
    return SpecialTokens(
        special_tokens(folder).get("bos_token") or None,
        {entry["content"]: entry["id"] for entry in entries if entry.get("special")},
    )


def _object(file: Path) -> dict[str, object]:
    return read_object(file) if file.is_file() else {}
