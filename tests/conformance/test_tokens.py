"""Merging by token, beside mergekit: for every token of the result the same row.

Rows are compared by what both results' tokenizers say: the order in which mergekit's union adds the
tokens of several models is another one in every run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.checkpoints import write_checkpoint, write_tokenizer
from tests.conformance.cases import F32, Case, Data, on_base, stage
from tests.conformance.conftest import (
    flat,
    load_folder,
    merge_with_mergekit,
    note_figure,
    recipe_text,
    run_engine,
)
from tests.conformance.test_agreement import BARS, relative_error

pytestmark = pytest.mark.timeout(400)  # the first test runs every merge

WORDS = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(3, 40))]
TURNED = [*WORDS[:3], *WORDS[:2:-1]]
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
# name: its words, its added tokens, rows without a token, options of its toy
MODELS: Mapping[str, tuple[Sequence[str], Sequence[str], int, Mapping[str, Any]]] = {
    "A": (WORDS, (), 0, {}),
    "B": (WORDS, ("<pad>",), 0, {}),
    "C": (WORDS, ("<im>", "<pad>", "<x>"), 0, {}),
    "padded": (WORDS, ("<pad>",), 7, {}),
    "turned": (TURNED, ("<x>",), 0, {}),
    "tied": (WORDS, ("<x>",), 0, {"tied": True}),
    "same": (WORDS, (), 0, {}),
    "half": (WORDS, ("<pad>",), 0, {"dtype": "float16"}),
}


def with_tokens(source: str, data: Data) -> Data:
    return data | {"tokenizer_source": source}


def house(*sources: str) -> list[Data]:
    one, two, last = sources
    return [
        with_tokens(one, stage("A", "B", [0.25, 0.5], "component-1", dtype=F32)),
        with_tokens(two, stage("B", "C", [0.4, 0.25], "component-2", dtype=F32)),
        with_tokens(last, stage("component-1", "component-2", 0.5, dtype=F32)),
    ]


STAGES: Mapping[str, list[Data]] = {
    "base": [with_tokens("base", stage("A", "B", 0.3, dtype=F32))],
    "base, the longer one": [with_tokens("base", stage("C", "A", 0.3, dtype=F32))],
    "union": [with_tokens("union", stage("A", "C", [0.2, 0.6], dtype=F32))],
    "union of three": [
        with_tokens("union", on_base("task_arithmetic", "A", {"B": 0.5, "C": 0.7}, dtype=F32))
    ],
    "a model": [with_tokens("C", stage("A", "C", 0.3, dtype=F32))],
    "a block": [stage("A", "B", 0.3, dtype=F32) | {"tokenizer": {"source": "union"}}],
    "mean of those that have it": [
        with_tokens("C", on_base("task_arithmetic", "A", {"B": 0.5, "C": 0.7}, dtype=F32))
    ],
    "the base's before the mean": [
        with_tokens("base", on_base("task_arithmetic", "B", {"A": 0.5, "C": 0.7}, dtype=F32))
    ],
    "rows without a token": [with_tokens("base", stage("padded", "A", 0.3, dtype=F32))],
    "another order": [with_tokens("union", stage("A", "turned", 0.4, dtype=F32))],
    "into another order": [with_tokens("turned", stage("C", "turned", 0.4, dtype=F32))],
    "a tied head": [with_tokens("union", stage("A", "tied", 0.4, dtype=F32))],
    "nothing to do": [with_tokens("base", stage("A", "same", 0.3, dtype=F32))],
    "float16": [with_tokens("base", stage("half", "A", 0.3, dtype="float16"))],
    "house, base": house("base", "base", "base"),
    "house, union": house("union", "union", "union"),
    "house, union at the end": house("base", "union", "union"),
    "house, base at the end": house("base", "union", "base"),
    "a token that only a part has": [
        with_tokens("union", stage("A", "C", 0.4, "x", dtype=F32)),
        with_tokens("A", stage("A", "x", 0.4, dtype=F32)),
    ],
}


@dataclass(frozen=True)
class Pair:
    """What both programs wrote for one case."""

    ours: Path
    theirs: Path


def write_model(folder: Path, name: str) -> Path:
    words, added, padding, options = MODELS[name]
    rows = len(words) + len(added) + padding
    more = {"dtype": F32, "layers": 2, "vocab_size": rows, "seed": ord(name[-1])} | options
    write_checkpoint(folder, near=None if "dtype" in options else (100, 0.3), **more)
    write_tokenizer(folder, words, added)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    home = tmp_path_factory.mktemp("tokens")
    folders = {name: str(write_model(home / name, name)) for name in MODELS}
    texts = {}
    for number, (title, stages) in enumerate(STAGES.items()):
        documents = Case({}, stages).documents(folders)
        for document in documents:
            source = document.get("tokenizer_source")
            if source in folders:
                document["tokenizer_source"] = folders[source]
        texts[title] = recipe_text(documents)
        (home / f"case-{number}").mkdir()
    made = {
        title: Pair(home / f"case-{number}" / "studio", home / f"case-{number}" / "mergekit")
        for number, title in enumerate(texts)
    }
    # As the studio writes it down: so its own reading and writing of the setting are compared too.
    recipes = {made[t].theirs: dump_recipe(load_recipe(text)) for t, text in texts.items()}
    merge_with_mergekit(home / "jobs.json", recipes)
    for title, text in texts.items():
        run_engine(text, made[title].ours)
    return made


@cache
def vocabulary(folder: Path) -> Mapping[str, int]:
    from transformers import AutoTokenizer

    found: Mapping[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    return found


@pytest.mark.parametrize("title", STAGES)
def test_every_tokens_row_is_mergekits(pairs: dict[str, Pair], title: str) -> None:
    pair = pairs[title]
    ours, theirs = load_folder(pair.ours), load_folder(pair.theirs)
    tokens = list(vocabulary(pair.theirs))
    assert set(vocabulary(pair.ours)) == set(tokens)
    assert ours.keys() == theirs.keys()
    for name in ours:
        found, expected = ours[name], theirs[name]
        if name in TABLES:
            found = found[[vocabulary(pair.ours)[token] for token in tokens]]
            expected = expected[[vocabulary(pair.theirs)[token] for token in tokens]]
        error = relative_error(flat(found), flat(expected))
        dtype = "float16" if title == "float16" else F32
        bar = BARS[dtype][0]
        note_figure(f"by token, {dtype}", error, title, name)
        assert error <= bar, name
        if name in TABLES:  # a few rows must not drown in the many
            rows = (found.double() - expected.double()).norm(dim=1) / expected.double().norm(dim=1)
            assert rows.max() <= 5 * bar, tokens[int(rows.argmax())]


@pytest.mark.parametrize("title", STAGES)
def test_rows_ids_and_config_agree(pairs: dict[str, Pair], title: str) -> None:
    """Every id of the written tokenizer is a row, and transformers loads the model with them."""
    from transformers import AutoModelForCausalLM

    folder = pairs[title].ours
    rows = {t.shape[0] for name, t in load_folder(folder).items() if name in TABLES}
    ids = vocabulary(folder).values()
    assert rows == {json.loads((folder / "config.json").read_text())["vocab_size"]}
    assert sorted(ids) == list(range(rows.pop()))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert torch.equal(model.get_input_embeddings().weight, load_folder(folder)[TABLES[0]])


def test_union_keeps_the_bases_ids_and_finds_the_added_tokens(pairs: dict[str, Pair]) -> None:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(pairs["union"].ours)
    assert [found.get_vocab()[word] for word in WORDS] == list(range(len(WORDS)))
    assert found.tokenize("w3 <im>w4") == ["w3", "<im>", "w4"]
    assert found.convert_tokens_to_ids(["<im>", "<pad>", "<x>"]) == [40, 41, 42]
    assert found("<im>", add_special_tokens=False)["input_ids"] == [40]


def test_some_rows_would_be_wrong_by_number(pairs: dict[str, Pair]) -> None:
    """The order differs so much that a merge by row would be far off."""
    pair = pairs["another order"]
    table = load_folder(pair.ours)[TABLES[0]]
    ids = vocabulary(pair.ours)
    wrong = np.array([ids[word] for word in TURNED])
    assert relative_error(flat(table[: len(WORDS)]), flat(table[wrong])) > 0.1
