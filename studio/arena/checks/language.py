"""Which language a text is in, for the handful that prompts ask for: by script and small words."""

import re
from collections import Counter

# The commonest small words of each language, without those that another language here shares.
_SMALL_WORDS = {
    "en": "the and of to is was that it with for his her she he they are you not from have this",
    "de": "der die das und ist nicht ein eine mit sich auf den dem von zu es sie wir ich auch",
    "fr": "le les des une est dans qui que pour pas sur au avec il elle nous vous mais je et",
    "es": "el los las una es y que en con por para su se lo más como pero muy del al",
    "it": "il gli una è di che non per con sono della nel del si ma più anche questo lo alla",
    "pt": "o os as uma é e que não com para do da no na em se mais mas ele ela",
    "nl": "de het een en van is niet dat op te zijn met voor die ik hij ze maar aan er",
}  # fmt: skip
_SCRIPTS = {
    "ru": "\u0400-\u04ff",
    "el": "\u0370-\u03ff",
    "ja": "\u3040-\u30ff",  # before zh: Japanese has Chinese characters too
    "zh": "\u4e00-\u9fff",
    "ko": "\uac00-\ud7af",
    "ar": "\u0600-\u06ff",
    "hi": "\u0900-\u097f",
}
LANGUAGES = (*_SMALL_WORDS, *_SCRIPTS)
_SETS = {name: frozenset(words.split()) for name, words in _SMALL_WORDS.items()}


def language_of(text: str) -> str:
    """One of LANGUAGES, or "" where it cannot be told: fewer than 3 small words, or a draw.

    Meant for answers of a sentence or more. A script counts if a third of the letters are in it.
    """
    letters = sum(letter.isalpha() for letter in text)
    for name, letter_range in _SCRIPTS.items():
        share = len(re.findall(f"[{letter_range}]", text)) / max(letters, 1)
        if share > (0.1 if name == "ja" else 1 / 3):
            return name
    counts = Counter(
        {name: 0 for name in _SETS}
        | Counter(
            name
            for word in re.findall(r"[^\W\d_]+", text.lower())
            for name, small in _SETS.items()
            if word in small
        )
    )
    (first, most), (_, second) = counts.most_common(2)
    return first if most >= 3 and most > second else ""
