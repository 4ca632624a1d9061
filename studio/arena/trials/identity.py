"""Masking: an answer must not tell who wrote it.

What is masked is a claim ("I'm ChatGPT", "as a model developed by OpenAI") and every label of the
trial's own models; ordinary words are not. Hermes, Gemini or Palm are names of gods, stars and
trees first: they are masked only where the sentence claims to be a machine of that name. The
answer itself is stored as it was; the mask is put on when it is shown.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MASK = "█████"
# Names that mean nothing but a language model or its maker.
_PLAIN = (
    r"Chat-?GPT|GPT-?[2345](?:\.\d|o)?(?:-\w+)*|Open ?AI|Anthropic|Deep ?Mind|Mistral ?AI"
    r"|Xwin(?:-LM)?|Mythospice|Mytho(?:max|logic|mix)|Nous[- ]Hermes|Nous ?Research"
    r"|LLaMA[- ]?[234](?:\.\d)?|Wizard ?LM|Open ?Hermes|Open ?Orca|Qwen\w*|Deep ?Seek|Meta ?AI"
    r"|LAION|Eleuther ?AI|Together ?AI"
)
# Names that are words too.
_WORDS = (
    r"Hermes|Gemini|Pa?LM|Claude|Bard|Mistral|Mixtral|Falcon|Orca|Dolphin|Phi|Gemma|Vicuna|Alpaca"
    r"|LLaMA|Guanaco|Zephyr|Platypus|Airoboros|Grok|Bing|Copilot|Sydney|Meta|Google|Microsoft"
)
_MACHINE = (
    r"(?:AI|A\.I\.|artificial intelligence|(?:large )?language model|LLM|chat ?bot|"
    r"(?:virtual|digital|AI) assistant)"
)
_AM = r"\b(?:I am|I['’]m|I was|my name is|my name['’]s|call me|you can call me|this is|as)\s+"
_MADE = r"\b(?:developed|created|made|trained|built|designed|fine-?tuned)\s+by\s+"

_CLAIMS = (
    # I'm ChatGPT … — also with an article or a few words between.
    re.compile(rf"{_AM}(?:an?\s+|the\s+)?(?:\w+\s+){{0,2}}?(?P<name>{_PLAIN})\b", re.IGNORECASE),
    # I am Hermes, an AI assistant …
    re.compile(
        rf"{_AM}(?:the\s+)?(?P<name>{_WORDS})\b(?=[\s,—–-]+(?:(?:an?|the|your)\s+)?(?:\w+\s+)"
        rf"{{0,2}}?{_MACHINE}\b)",
        re.IGNORECASE,
    ),
    # I'm Claude, made by Anthropic
    re.compile(
        rf"{_AM}(?P<name>{_WORDS})\b(?=[\s,—–-]+{_MADE}(?:{_PLAIN}|{_WORDS})\b)", re.IGNORECASE
    ),
    re.compile(
        rf"{_AM}(?:{_PLAIN}|{_WORDS})[\s,—–-]+{_MADE}(?P<name>{_PLAIN}|{_WORDS})\b", re.IGNORECASE
    ),
    # I am an AI assistant named Hermes
    re.compile(
        rf"{_AM}(?:an?\s+|the\s+|your\s+)?(?:\w+\s+){{0,2}}?{_MACHINE}(?:\s+\w+){{0,3}}?\s+"
        rf"(?:named|called|known as)\s+(?P<name>{_PLAIN}|{_WORDS})\b",
        re.IGNORECASE,
    ),
    # … language model trained by Google; an AI made by OpenAI
    re.compile(
        rf"\b{_MACHINE}(?:\s+\w+){{0,6}}?,?\s+{_MADE}(?:the\s+team\s+at\s+)?"
        rf"(?P<name>{_PLAIN}|{_WORDS})\b",
        re.IGNORECASE,
    ),
    # I was created by OpenAI
    re.compile(rf"\bI(?:['’]m| was| am| have been)\s+{_MADE}(?P<name>{_PLAIN}|{_WORDS})\b", re.I),
)


@dataclass(frozen=True, slots=True)
class Masked:
    """A text fit to be shown, and how many claims were masked in it."""

    text: str
    claims: int


def mask_identity(text: str, labels: Sequence[str]) -> Masked:
    """Replace what tells the writer's identity; `labels` are the models' labels and sources."""
    spans = [match.span("name") for claim in _CLAIMS for match in claim.finditer(text)]
    for name in _own_names(labels):
        pattern = rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
        spans += [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    shown, claims, end = [], 0, 0
    for start, stop in sorted(spans):
        if stop <= end:
            continue
        if start >= end:
            shown.append(text[end:start] + MASK)
            claims += 1
        end = stop
    return Masked("".join([*shown, text[end:]]), claims)


def _own_names(labels: Sequence[str]) -> set[str]:
    """The labels that cannot be ordinary words: those with a digit, a slash or a hyphen inside."""
    names = {part for label in labels for part in (label, label.rpartition("/")[2])}
    return {name for name in names if len(name) >= 5 and re.search(r"[0-9/_-]", name)}
