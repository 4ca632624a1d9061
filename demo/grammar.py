"""A grammar of sentence patterns that both writes passages and judges them.

A passage runs through phases, one sentence each, in order. Every sentence fits a pattern of its
phase, and the slots that name the hero, the item and the friend agree throughout.
"""

import random
import re
from dataclasses import dataclass
from functools import cache

from demo.words import HEROES, ITEMS, NUMBERS, PLACES, WORDS, Topic, with_article

_ADJECTIVES = [
    "small",
    "shy",
    "brave",
    "kind",
    "young",
    "clever",
    "merry",
    "gentle",
    "quiet",
    "old",
    "cheerful",
    "patient",
]
_LOOKS = ["bright", "tiny", "beautiful", "precious", "curious", "golden", "shiny", "wonderful"]

SLOTS: dict[str, list[str]] = {
    "hero": HEROES,
    "item": ITEMS,
    "an_item": [with_article(item) for item in ITEMS],
    "friend": HEROES,
    "a_friend": [with_article(friend) for friend in HEROES],
    "A_friend": [with_article(friend).capitalize() for friend in HEROES],
    "place": PLACES,
    "adjective": _ADJECTIVES,
    "an_adjective": [with_article(adjective) for adjective in _ADJECTIVES],
    "look": _LOOKS,
    "season": ["spring", "summer", "autumn", "winter"],
    "time": ["morning", "evening", "afternoon", "day", "night"],
    "weather": ["sunny", "rainy", "windy", "snowy", "misty"],
    "spot": [
        "under a tree",
        "behind a wall",
        "near the well",
        "beside the path",
        "in the grass",
        "on a stone",
    ],
    "goal": ["market", "bridge", "mill", "tower", "square", "fountain", "gate", "orchard"],
    "feeling": ["happy", "glad", "proud", "thankful", "hopeful", "calm"],
    "gesture": ["bows", "smiles", "waves", "laughs", "nods", "winks", "sings", "claps"],
    "greeting": ["Good day", "Well met", "Welcome", "Greetings", "Hello", "Ahoy", "Come closer"],
    "visitor": ["friend", "traveller", "stranger", "dear guest", "young one"],
    "number": NUMBERS[1:12],
    "word": WORDS,
    "other": WORDS,
    "first": WORDS,
    "a_first": [with_article(word) for word in WORDS],
    "second": WORDS,
}


@dataclass(frozen=True)
class Style:
    """A kind of passage: the patterns of each phase, and which phases may be left out."""

    phases: tuple[tuple[str, ...], ...]
    optional: frozenset[int] = frozenset()


STORY = Style(
    phases=(
        (
            "Once upon a time {an_adjective} {hero} lived {place}.",
            "Long ago {an_adjective} {hero} made a home {place}.",
            "There was once {an_adjective} {hero} who lived {place}.",
            "One {season} {an_adjective} {hero} came to live {place}.",
        ),
        (
            "One {weather} {time} the {hero} found {an_item} {spot}.",
            "One {time} the {hero} saw {an_item} {spot} and picked it up.",
            "One {weather} {time} the {hero} lost {an_item} {spot}.",
            "Early one {time} someone left {an_item} {spot} for the {hero}.",
        ),
        (
            "The {item} was {look}, and the {hero} felt {feeling}.",
            "The {hero} had never seen such a {look} {item} before.",
            "The {hero} thought about the {item} all the way to the {goal}.",
        ),
        (
            "Soon {a_friend} came by and asked about the {item}.",
            "{A_friend} heard the news and hurried over to help.",
            "At the {goal} the {hero} met {a_friend} and told the whole tale.",
            "Then {a_friend} stopped at the {goal} and offered to help.",
        ),
        (
            "That night the {hero} and the {friend} sat together and were {feeling}.",
            "From that day on the {hero} and the {friend} were the best of friends.",
            "The {hero} and the {friend} walked home, and both were {feeling}.",
            "In the end they shared the {item}, and everyone was {feeling}.",
        ),
    ),
    optional=frozenset({2}),
)

ROLEPLAY = Style(
    phases=(
        ("*{gesture}* {greeting}, {visitor}!", "*{gesture}* Ah, there you are, {visitor}!"),
        (
            "I am the {adjective} {hero} you were told about {place}.",
            "You are speaking to {an_adjective} {hero}, and I live {place}.",
            "They call me the {hero} with the {look} {item}, and my home is {place}.",
            "I am {an_adjective} {hero}, and I have come from my house {place}.",
        ),
        (
            "My {item} has been with me for {number} winters, and I keep it close.",
            "I found this {item} {spot}, and I still feel {feeling} when I hold it.",
            "Look at my {item}, is it not {look}?",
            "I would not trade my {item} for all the gold in your pockets.",
        ),
        (
            "I carry it to the {goal} when I am feeling {feeling}.",
            "My neighbour the {friend} says there is nothing as {look} as this {item}.",
        ),
        (
            "Will you walk with me to the {goal}?",
            "Tell me, what brings you to my door?",
            "Come, sit with me and drink some tea!",
            "May I show you the {goal} before you go?",
        ),
    ),
    optional=frozenset({3}),
)
STYLES = {"story": STORY, "roleplay": ROLEPLAY}
_SLOT = re.compile(r"{(\w+)}")
_SENTENCE = re.compile(r"[^.!?]+[.!?]")
_ARTICLE = re.compile(r"^(an?) ", re.IGNORECASE)
# Slots that name the same thing with and without an article.
_NAMES = {
    "hero": "hero",
    "item": "item",
    "an_item": "item",
    "friend": "friend",
    "a_friend": "friend",
    "A_friend": "friend",
}


def fill(pattern: str, topic: Topic, friend: str, rng: random.Random) -> str:
    """One sentence of a pattern; slots that the topic and the friend leave open are drawn."""
    fixed = {
        "hero": topic.hero,
        "item": topic.item,
        "an_item": with_article(topic.item),
        "place": topic.place,
        "friend": friend,
        "a_friend": with_article(friend),
        "A_friend": with_article(friend).capitalize(),
    }
    return _SLOT.sub(lambda slot: fixed.get(slot[1]) or rng.choice(SLOTS[slot[1]]), pattern)


def write_passage(style: str, topic: Topic, rng: random.Random) -> str:
    """A passage of four or five sentences about the topic."""
    phases, optional = STYLES[style].phases, STYLES[style].optional
    friend = rng.choice([hero for hero in HEROES if hero != topic.hero])
    chosen = [i for i in range(len(phases)) if i not in optional or rng.random() < 0.5]
    return " ".join(fill(rng.choice(phases[i]), topic, friend, rng) for i in chosen)


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    parts = _SLOT.split(pattern)
    literals, slots = map(re.escape, parts[::2]), parts[1::2]
    groups = [f"(?P<{slot}>{'|'.join(map(re.escape, SLOTS[slot]))})" for slot in slots]
    return re.compile("".join(a + b for a, b in zip(literals, [*groups, ""], strict=True)))


def match_sentence(sentence: str, patterns: tuple[str, ...]) -> dict[str, str] | None:
    """What each slot holds if the sentence fits one of the patterns, else None."""
    matches = (_expression(pattern).fullmatch(sentence) for pattern in patterns)
    return next((match.groupdict() for match in matches if match), None)


def find_fault(style: str, passage: str) -> str | None:
    """Why the passage is not one of the style's grammar; None if it is."""
    phases, optional = STYLES[style].phases, STYLES[style].optional
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(passage)]
    if " ".join(sentences) != passage.strip():
        return "does not end in a whole sentence, or has stray spaces"
    names: dict[str, str] = {}
    phase = 0
    for sentence in sentences:
        while phase in optional and not match_sentence(sentence, phases[phase]):
            phase += 1
        slots = match_sentence(sentence, phases[phase]) if phase < len(phases) else None
        if slots is None:
            return f"no pattern fits here: {sentence}"
        for slot in slots.keys() & _NAMES.keys():
            name = _ARTICLE.sub("", slots[slot])
            if names.setdefault(_NAMES[slot], name) != name:
                return f"speaks of another {_NAMES[slot]}: {sentence}"
        phase += 1
    if phase < len(phases):
        return "stops before the passage is complete"
    if names.get("hero") == names.get("friend"):
        return "the hero is their own friend"
    return None
