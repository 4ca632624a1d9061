"""transformers loads what we write, and computes with exactly those weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conformance.conftest import Outcome, is_buffer, load_folder

pytestmark = pytest.mark.timeout(400)  # the first test runs every merge

RENAMED = {"embed_out.weight": "lm_head.weight"}  # by transformers as it loads GPT-NeoX
LOADED = [
    "float32: house, near",
    "bfloat16: house, sharded",
    "float16: house, sharded .bin",
    "float32: one layer",
    "float32: mistral",
    "float32: qwen2",
    "bfloat16: qwen2",
    "float32: gpt_neox",
    "bfloat16: gpt_neox",
    "float32: gemma",
    "bfloat16: gemma",
    "float32: tied llama",
    "float32: tied base, others not",
    "float32: one tied that is not the base",
    "float32: promoted from three dtypes",
    "float32: mixtral",
]


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")


@pytest.mark.parametrize("title", LOADED)
def test_transformers_loads_every_tensor(outcomes: dict[str, Outcome], title: str) -> None:
    model, found = load(outcomes[title].ours)
    unread = {name for name in found["unexpected_keys"] if not is_buffer(name)}
    assert (set(found["missing_keys"]), unread, set(found["mismatched_keys"])) == (set(),) * 3
    written = load_folder(outcomes[title].ours)
    state = model.state_dict()
    unlike = [n for n in written.keys() & state.keys() if not torch.equal(state[n], written[n])]
    assert unlike == []
    read = {name for name in written if not is_buffer(name) and "_moe." not in name}
    assert {RENAMED.get(name, name) for name in read} <= state.keys()
    logits = model(torch.tensor([[3, 4, 5, 6]])).logits
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize(
    ("title", "tied"),
    [
        ("float32: tied llama", True),
        ("float32: gemma", True),
        ("float32: tied base, others not", False),
        ("float32: one tied that is not the base", False),
        ("float32: house, near", False),
    ],
)
def test_head_is_tied_only_where_no_source_has_its_own(
    outcomes: dict[str, Outcome], title: str, tied: bool
) -> None:
    """mergekit leaves the base's word for it, by which loaders ignore a head that was written."""
    folder = outcomes[title].ours
    assert ("lm_head.weight" in load_folder(folder)) is not tied
    model, _ = load(folder)
    assert model.config.tie_word_embeddings is tied
    same = torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    assert same is tied
