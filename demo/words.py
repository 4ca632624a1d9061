"""The words of the demo's small world, and the draw that keeps one case in five for evaluation."""

import hashlib
import random
from dataclasses import dataclass


def _words(text: str) -> list[str]:
    return text.split()


ANIMALS = _words(
    "fox owl rabbit bear mouse cat dog horse duck goat frog otter badger hedgehog squirrel swan"
)
PEOPLE = _words(
    "baker farmer sailor knight wizard pirate queen gardener teacher painter shepherd innkeeper"
    " tailor captain miller prince"
)
FRUITS = _words("apple pear plum cherry peach lemon grape orange")
TOOLS = _words("hammer ladder rope bucket spoon brush needle shovel")
TOYS = _words("kite drum ball doll puppet whistle marble balloon")
TREASURES = _words("lantern key bell ring map mirror flute shell book letter")
COLOURS = _words("red blue green yellow white black purple pink")
TREES = _words("oak pine birch willow maple elm cedar ash")

# Plural, as instructions name a category, to (singular, members).
CATEGORIES: dict[str, tuple[str, list[str]]] = {
    "animals": ("animal", ANIMALS),
    "people": ("person", PEOPLE),
    "fruits": ("fruit", FRUITS),
    "tools": ("tool", TOOLS),
    "toys": ("toy", TOYS),
    "treasures": ("treasure", TREASURES),
    "colours": ("colour", COLOURS),
    "trees": ("tree", TREES),
}
HEROES = ANIMALS + PEOPLE
ITEMS = FRUITS + TOOLS + TOYS + TREASURES
WORDS = HEROES + ITEMS + COLOURS + TREES
NUMBERS = _words(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen twenty"
)
PLACES = [
    "in the forest",
    "in the garden",
    "in the village",
    "in the valley",
    "in the harbour",
    "in the meadow",
    "on the hill",
    "on the island",
    "by the river",
    "by the lake",
    "by the sea",
    "near the castle",
]

_HELD_OUT_SHARE = 5


def with_article(noun: str) -> str:
    """The noun phrase with its indefinite article: "a fox", "an owl"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def category_of(word: str) -> str:
    """The singular category of a word of this world: "fox" is an "animal"."""
    return next(singular for singular, members in CATEGORIES.values() if word in members)


def is_held_out(*key: str) -> bool:
    """Whether the case that these words identify belongs to evaluation.

    A hash decides, so that every generator agrees on the split without keeping lists.
    """
    digest = hashlib.sha256("|".join(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") % _HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class Topic:
    """What a passage is about: someone, something, and where."""

    hero: str
    item: str
    place: str


def draw_topic(
    rng: random.Random, *, held_out: bool, hero: str | None = None, item: str | None = None
) -> Topic:
    """A topic of the wanted side of the split; a given hero or item is kept where the split allows.

    The pair of hero and item identifies a topic, so a held-out pair occurs in no training text.
    """
    while True:
        topic = Topic(hero or rng.choice(HEROES), item or rng.choice(ITEMS), rng.choice(PLACES))
        if is_held_out("topic", topic.hero, topic.item) == held_out:
            return topic
        if hero and item:
            item = None
