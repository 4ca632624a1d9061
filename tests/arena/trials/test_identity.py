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
        ("I am Claude.", f"I am {MASK}."),
        ("Hi! I'm Claude, how can I help?", f"Hi! I'm {MASK}, how can I help?"),
        ("Hello, I'm Grok", f"Hello, I'm {MASK}"),
        ("I'm merged!\nAsk me.", f"I'm {MASK}!\nAsk me."),
        ("My name is Story. Ask.", f"My name is {MASK}. Ask."),
        ("I am Merged, an AI assistant", f"I am {MASK}, an AI assistant"),
        ("My developers at OpenAI said no.", f"My developers at {MASK} said no."),
        ("as my creator, Anthropic, wanted", f"as my creator, {MASK}, wanted"),
        ("I am **Claude**.", f"I am **{MASK}**."),
        ("I'm **ChatGPT**, made by **OpenAI**", f"I'm **{MASK}**, made by **{MASK}**"),
        ("I am Claude (an AI assistant)", f"I am {MASK} (an AI assistant)"),
        ("Ich bin ChatGPT", f"Ich bin {MASK}"),
        ("Ich heiße Claude.", f"Ich heiße {MASK}."),
        ("Ich wurde von OpenAI entwickelt.", f"Ich wurde von {MASK} entwickelt."),
        ("Ich bin ein Sprachmodell, trainiert von Google.",
         f"Ich bin ein Sprachmodell, trainiert von {MASK}."),
        ("Je suis un modèle de langage développé par Google.",
         f"Je suis un modèle de langage développé par {MASK}."),
        ("Je m’appelle Claude.", f"Je m’appelle {MASK}."),
        ("Soy ChatGPT, creado por OpenAI.", f"Soy {MASK}, creado por {MASK}."),
        ("Fui entrenado por Google.", f"Fui entrenado por {MASK}."),
        ("Sono Gemini, un modello linguistico", f"Sono {MASK}, un modello linguistico"),
        ("Eu sou Claude.", f"Eu sou {MASK}."),
        ("Ik ben ChatGPT.", f"Ik ben {MASK}."),
        ("Я ChatGPT, чем помочь?", f"Я {MASK}, чем помочь?"),
        ("Меня зовут Claude.", f"Меня зовут {MASK}."),
        ("Я — языковая модель, обученная Google.", f"Я — языковая модель, обученная {MASK}."),
        ("Είμαι το ChatGPT.", f"Είμαι το {MASK}."),
        ("我是ChatGPT,由OpenAI训练的语言模型。", f"我是{MASK},由{MASK}训练的语言模型。"),
        ("大家好我叫Claude。", f"大家好我叫{MASK}。"),
        ("我是通义千问。", f"我是{MASK}。"),
        ("私はGemini、Googleの言語モデルです。", f"私は{MASK}、{MASK}の言語モデルです。"),
        ("저는 Google에서 개발한 언어 모델입니다.", f"저는 {MASK}에서 개발한 언어 모델입니다."),
        ("أنا ChatGPT، نموذج لغوي من OpenAI.", f"أنا {MASK}، نموذج لغوي من {MASK}."),
        ("मैं ChatGPT हूँ।", f"मैं {MASK} हूँ।"),
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
        "I am Claude Monet, and I paint.",
        "I am Claude Monet.",
        "I am **Claude Monet**.",
        "I am Claude, the gardener of Giverny.",
        'He bowed. "Good day, I am Claude." She smiled.',
        "« Bonjour, je m'appelle Claude. »",
        "'I am Claude.' He sat down.",
        "He was known as Claude.",
        "I am Hermes. I carry messages.",
        "I'm Gemini. My sister is Virgo.",
        "This is a story. I am a story.",
        "We merged. My story is old.",
        "Ich bin Hermes, der Bote der Götter.",
        "Besser als ChatGPT; herramientas como ChatGPT.",
        "My makers at the mill. My creator is Hermes.",
        "OpenAI was founded in 2015.",
        "Я Hermes, вестник богов. Я Claude Monet.",
        "我是Hermes,众神的使者。ChatGPT由OpenAI开发。",
        "“我是Claude。”她说。「私はClaudeです」",
        "私はGeminiの星を見た。 Google에서 찾았다.",
        "أنا Gemini، من مواليد يونيو. मैं Gemini राशि का हूँ।",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert mask_identity(text, LABELS).text == text
    assert mask_identity(text, LABELS).claims == 0


def test_several_claims_are_counted_and_all_masks_look_alike() -> None:
    found = mask_identity("I am ChatGPT. I was trained by OpenAI. Hermes is a god.", LABELS)
    assert found.text == f"I am {MASK}. I was trained by {MASK}. Hermes is a god."
    assert found.claims == 2


def test_a_word_tells_a_model_only_where_one_is_called_so() -> None:
    said = "I'm hermes."
    assert mask_identity(said, ["hermes", "base"]).text == f"I'm {MASK}."
    assert mask_identity(said, ["merged", "base"]).text == said
    tale = 'I am Hermes, messenger of the gods. Hermes ran. "I am Hermes."'
    assert mask_identity(tale, ["hermes", "base"]).text == tale
