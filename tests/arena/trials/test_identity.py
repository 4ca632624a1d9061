"""What tells the writer of an answer is masked; ordinary words stay."""

import pytest

from studio.arena.trials.identity import MASK, mask_identity

LABELS = ["merged", "Xwin-LM/Xwin-LM-70B-V0.1", "NousResearch/Nous-Hermes-Llama2-70b", "story"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("I'm ChatGPT, how can I help?", f"I'm {MASK}, how can I help?"),
        ("I am Hermes, an AI assistant.", f"I am {MASK}, an AI assistant."),
        ("My name is Claude, your AI helper", f"My name is {MASK}, your AI helper"),
        ("I'm Claude, made by Anthropic.", f"I'm {MASK}, made by {MASK}."),
        ("I am Gemini - built by Google", f"I am {MASK} - built by {MASK}"),
        ("a language model trained by Google", f"a language model trained by {MASK}"),
        ("I was created by OpenAI.", f"I was created by {MASK}."),
        ("I’m an AI assistant called Vicuna.", f"I’m an AI assistant called {MASK}."),
        ("As xwin-lm-70b-v0.1 I cannot say.", f"As {MASK} I cannot say."),
        ("This is Nous-Hermes-Llama2-70b speaking", f"This is {MASK} speaking"),
        ("as a GPT-4 model, I", f"as a {MASK} model, I"),
    ],
)  # fmt: skip
def test_claims_of_an_identity_are_masked(text: str, shown: str) -> None:
    found = mask_identity(text, LABELS)
    assert (found.text, found.claims) == (shown, shown.count(MASK))


@pytest.mark.parametrize(
    "text",
    [
        "I am Hermes, messenger of the gods.",
        "Gemini rose above the palm trees.",
        "Her palm was cold. 'I am Gemini,' she said, 'born in June.'",
        "I am a llama, and proud of it.",
        "The falcon and the dolphin met the orca.",
        "Claude painted water lilies; the bard sang.",
        "A merged story of the mistral wind.",
        "My name is Phi, said the Greek letter.",
        "I was made by my mother.",
        "I am Hermes, made by the hands of gods.",
        "The AI in the story was evil. Google it.",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert mask_identity(text, LABELS).text == text
    assert mask_identity(text, LABELS).claims == 0


def test_several_claims_are_counted_and_all_masks_look_alike() -> None:
    found = mask_identity("I am ChatGPT. I was trained by OpenAI. Hermes is a god.", LABELS)
    assert found.text == f"I am {MASK}. I was trained by {MASK}. Hermes is a god."
    assert found.claims == 2
