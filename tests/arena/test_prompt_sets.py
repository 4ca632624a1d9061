"""The prompt sets that come with the studio: how many there are of each kind."""

from collections import Counter
from pathlib import Path

import mistral_common
import pytest
from sentencepiece import SentencePieceProcessor

from studio.arena.checks.constraints import check
from studio.arena.prompts.prompt import Prompt, load_prompts

DATA = Path(mistral_common.__file__).parent / "data"  # 32,000 tokens, as Llama-2's tokenizer has
PROMPTS = Path(__file__).parents[2] / "prompts"
TYPES = (
    "length", "format", "keywords", "position", "case", "punctuation", "language", "json", "steps",
)  # fmt: skip
LONG_TOKENS = 3000


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Loading both together also refuses near-duplicates between them."""
    return load_prompts(PROMPTS / "instruction-following.yaml", PROMPTS / "creative.yaml")


def test_instruction_following_has_enough_of_each_type(prompts: list[Prompt]) -> None:
    found = [p for p in prompts if p.category == "instruction-following"]
    assert len(found) >= 60
    by_type = Counter(p.tags[0] for p in found)
    assert set(by_type) == {*TYPES, "multi-constraint"}
    assert min(by_type.values()) >= 5


def test_instruction_following_can_all_be_checked(prompts: list[Prompt]) -> None:
    for prompt in prompts:
        if prompt.category != "instruction-following":
            continue
        kinds = {constraint.kind for constraint in prompt.constraints}
        if prompt.tags[0] in TYPES:
            assert prompt.tags[0] in kinds, prompt.id
        else:
            assert len(prompt.constraints) >= 4, prompt.id
        results = check(prompt.constraints, "An answer that follows no instruction")
        assert not all(result.passed for result in results), prompt.id


def test_creative_has_enough_of_each_kind(prompts: list[Prompt]) -> None:
    found = [p for p in prompts if p.category != "instruction-following"]
    assert sum(not p.sensitive for p in found) >= 60
    assert sum(len(p.messages) > 1 for p in found) >= 15
    tokenizer = SentencePieceProcessor(model_file=str(next(DATA.glob("tokenizer.model.v1"))))
    long = [p for p in found if p.category == "long-context"]
    assert len(long) >= 8
    for prompt in long:
        text = prompt.system + "".join(message.content for message in prompt.messages)
        assert len(tokenizer.encode(text)) > LONG_TOKENS, prompt.id


def test_a_sealed_part_is_kept_of_every_category(prompts: list[Prompt]) -> None:
    for category in {p.category for p in prompts}:
        part = [p.sealed for p in prompts if p.category == category]
        assert 0.2 < sum(part) / len(part) < 0.5, category
