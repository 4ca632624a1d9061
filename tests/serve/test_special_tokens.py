"""Special tokens, read from a model's files."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.serve.special_tokens import SpecialTokens, end_tokens, tokens_of


def model(folder: Path, **files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("stated", "expected"),
    [(2, (2,)), ([128009, 128001, 7], (7,)), ([9, 2], (2, 9)), (None, ()), ([True, "2", -1], ())],
)
def test_generation_config_tells_the_end_tokens(
    tmp_path: Path, stated: object, expected: tuple[int, ...]
) -> None:
    """Those beyond the 100 words of the vocabulary can never come."""
    config = {"eos_token_id": 5, "vocab_size": 100}
    found = end_tokens(model(tmp_path, config=config, generation_config={"eos_token_id": stated}))
    assert found == expected


def test_config_tells_them_where_there_is_no_generation_config(tmp_path: Path) -> None:
    assert end_tokens(model(tmp_path, config={"eos_token_id": [4, 3]})) == (3, 4)
    assert end_tokens(model(tmp_path, config={})) == ()


def test_special_tokens_are_found_by_their_text(tmp_path: Path) -> None:
    entries = [
        {"id": 7, "content": "<|im_end|>", "special": True},
        {"id": 8, "content": "plain", "special": False},
    ]
    assert tokens_of(tmp_path) == SpecialTokens()
    by_id = {str(entry["id"]): entry for entry in entries}
    config = {"added_tokens_decoder": by_id, "bos_token": {"content": "<s>"}}
    older = model(tmp_path, tokenizer_config=config)
    assert tokens_of(older) == SpecialTokens("<s>", {"<|im_end|>": 7})
    newer = model(tmp_path, tokenizer={"added_tokens": [entries[0] | {"id": 9}]})
    assert tokens_of(newer) == SpecialTokens("<s>", {"<|im_end|>": 9})
