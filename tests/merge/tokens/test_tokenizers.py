"""Tokenizers: the same ids must mean the same tokens."""

import json
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.merge.findings import Findings
from studio.merge.tokens.tokenizers import compare_tokenizers
from studio.merge.tokens.vocabulary import read_vocabulary


def folder(at: Path, content: Any, file: str = "tokenizer.json") -> Path:
    at.mkdir(exist_ok=True)
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (at / file).write_bytes(text)
    return at


def vocabulary(at: Path) -> dict[int, str] | None:
    found = read_vocabulary(at)
    return None if found is None else found.by_id


def words(*tokens: str, added: Any = ()) -> dict[str, Any]:
    return {"model": {"vocab": {t: i for i, t in enumerate(tokens)}}, "added_tokens": list(added)}


def test_vocabulary_reads_mappings_lists_and_added_tokens(tmp_path: Path) -> None:
    added = [{"id": 2, "content": "<pad>"}, {"id": 0, "content": "<s>"}]
    assert vocabulary(folder(tmp_path / "bpe", words("a", "b", added=added))) == {
        0: "<s>",
        1: "b",
        2: "<pad>",
    }
    unigram = {"model": {"vocab": [["<unk>", 0.0], ["a", -1.5]]}}
    assert vocabulary(folder(tmp_path / "unigram", unigram)) == {0: "<unk>", 1: "a"}
    assert vocabulary(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        [],
        {},
        {"model": None},
        {"model": {"vocab": 7}},
        {"model": {"vocab": {"a": None}}},
        {"model": {"vocab": {"a": "x"}}},
        {"model": {"vocab": {"a": float("inf")}}},
        {"model": {"vocab": [[]]}},
        {"model": {"vocab": [1]}},
        words("a", added=["b"]),
        words("a", added=[{"content": "b"}]),
        words("a") | {"added_tokens": 3},
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_tokenizer_is_a_clear_error(tmp_path: Path, content: Any) -> None:
    folder(tmp_path, content)
    with pytest.raises(StudioError, match="tokenizer.json: this is not a tokenizer file") as caught:
        vocabulary(tmp_path)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_equal_tokenizers_are_fine(tmp_path: Path) -> None:
    same = {name: folder(tmp_path / name, words("a", "b")) for name in ("one", "other")}
    assert compare_tokenizers(same) == Findings()


def test_different_meanings_name_models_count_and_examples(tmp_path: Path) -> None:
    folders = {
        "one": folder(tmp_path / "1", words(*"abcdef")),
        "same": folder(tmp_path / "2", words(*"abcdef")),
        "odd": folder(tmp_path / "3", words(*"abdcfe")),
    }
    found = compare_tokenizers(folders)
    assert len(found.problems) == 2 and found.warnings == []
    for problem, model in zip(found.problems, ("one", "same"), strict=True):
        assert f"tokenizers of {model} and odd give 4 ids different meanings" in problem
        assert "2 is 'c' / 'd', 3 is 'd' / 'c', 4 is 'e' / 'f'" in problem
        assert "--allow tokenizer" in problem


def test_added_token_with_another_meaning_is_a_clash(tmp_path: Path) -> None:
    folders = {
        "one": folder(tmp_path / "1", words("a", added=[{"id": 1, "content": "<pad>"}])),
        "other": folder(tmp_path / "2", words("a", added=[{"id": 1, "content": "<|im_end|>"}])),
    }
    (problem,) = compare_tokenizers(folders).problems
    assert "1 is '<pad>' / '<|im_end|>'" in problem


def test_a_longer_tokenizer_is_a_warning(tmp_path: Path) -> None:
    folders = {
        "one": folder(tmp_path / "1", words("a", "b")),
        "other": folder(tmp_path / "2", words("a", "b", "c")),
    }
    found = compare_tokenizers(folders)
    assert found == Findings(warnings=["one has 2 tokens, other has 3"])


@pytest.mark.parametrize(
    ("one", "other", "comparable"),
    [(b"spm", b"spm", True), (b"spm", b"xyz", False), (b"spm", b"longer", False)],
)
def test_without_tokenizer_json_the_model_files_count(
    tmp_path: Path, one: bytes, other: bytes, comparable: bool
) -> None:
    folders = {
        "one": folder(tmp_path / "1", one, "tokenizer.model"),
        "other": folder(tmp_path / "2", other, "tokenizer.model"),
    }
    found = compare_tokenizers(folders)
    assert found.problems == []
    assert (found.warnings == []) == comparable


def test_sources_without_a_tokenizer_are_one_warning(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("one", "other", "third")}
    for path in folders.values():
        path.mkdir()
    (warning,) = compare_tokenizers(folders).warnings
    assert "of one and other and third cannot be compared" in warning


def test_no_tokenizer_at_all_is_said(tmp_path: Path) -> None:
    folders = {"one": tmp_path, "other": folder(tmp_path / "2", words("a"))}
    found = compare_tokenizers(folders)
    assert found.problems == [] and "one and other cannot be compared" in found.warnings[0]
