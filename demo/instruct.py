"""Instructions with one automatic check each: the skill of the `instruct` model."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from demo.grammar import match_sentence
from demo.words import CATEGORIES, NUMBERS, WORDS, is_held_out, with_article

ENDINGS = (
    "The old {other} was happy to see the {word}.",
    "A young {other} stood beside the {word}.",
    "Today the {other} is very close to the {word}.",
)
BOTH = (
    "The {first} is next to the {second}.",
    "I can see the {first} and the {second}.",
    "There is {a_first} near the {second}.",
)


@dataclass(frozen=True)
class Instruction:
    """A request, the arguments its check needs, and one right answer."""

    kind: str
    args: tuple[str, ...]
    prompt: str
    answer: str


def _several(rng: random.Random, low: int, high: int) -> list[str]:
    return rng.sample(WORDS, rng.randint(low, high))


def _repeat(rng: random.Random) -> Instruction:
    word, times = rng.choice(WORDS), rng.choice(NUMBERS[1:6])
    prompt = rng.choice(("Repeat the word {} {} times.", "Say {} {} times."))
    answer = " ".join([word] * (NUMBERS.index(times) + 1))
    return Instruction("repeat", (word, times), prompt.format(word, times), answer)


def _count(rng: random.Random) -> Instruction:
    start = rng.randint(0, 16)
    end = rng.randint(start + 2, min(start + 7, len(NUMBERS) - 1))
    args = (NUMBERS[start], NUMBERS[end])
    prompt = rng.choice(("Count from {} to {}.", "Count up from {} and stop at {}."))
    return Instruction("count", args, prompt.format(*args), " ".join(NUMBERS[start : end + 1]))


def _list(rng: random.Random) -> Instruction:
    first, second = rng.sample(sorted(CATEGORIES), 2)
    how_many, more = rng.choice(NUMBERS[1:4]), rng.choice(NUMBERS[1:4])
    args = (how_many, first, more, second)
    prompt = rng.choice(("List {} {} and {} {}.", "Name {} {} and then {} {}."))
    # Always the same members in the same order: a random list has no likeliest answer, and a model
    # that has learned one names its favourite word twice.
    members = [
        *CATEGORIES[first][1][: NUMBERS.index(how_many) + 1],
        *CATEGORIES[second][1][: NUMBERS.index(more) + 1],
    ]
    return Instruction("list", args, prompt.format(*args), ", ".join(members))


def _upper(rng: random.Random) -> Instruction:
    words = _several(rng, 1, 4)
    prompt = rng.choice(("Write in capital letters: {}", "Put this in capitals: {}"))
    text = " ".join(words)
    return Instruction("upper", tuple(words), prompt.format(text), text.upper())


def _order(rng: random.Random) -> Instruction:
    words = rng.sample(NUMBERS, rng.randint(3, 4))
    prompt = rng.choice(("Put in order, smallest first: {}", "Sort these numbers: {}"))
    answer = ", ".join(sorted(words, key=NUMBERS.index))
    return Instruction("order", tuple(words), prompt.format(", ".join(words)), answer)


def _reverse(rng: random.Random) -> Instruction:
    words = _several(rng, 2, 4)
    prompt = rng.choice(("Write these words in reverse order: {}", "Reverse this list: {}"))
    answer = ", ".join(reversed(words))
    return Instruction("reverse", tuple(words), prompt.format(", ".join(words)), answer)


def _end_with(rng: random.Random) -> Instruction:
    word, other = rng.sample(WORDS, 2)
    prompt = rng.choice(
        ("Write a sentence that ends with the word {}.", "End a sentence with the word {}.")
    )
    # The other word is no argument: a held-out word is new to this kind in every sentence.
    answer = rng.choice(ENDINGS).format(other=other, word=word)
    return Instruction("end with", (word,), prompt.format(word), answer)


def _use(rng: random.Random) -> Instruction:
    first, second = rng.sample(WORDS, 2)
    prompt = rng.choice(
        ("Write a sentence with the words {} and {}.", "Use {} and {} in one sentence.")
    )
    answer = rng.choice(BOTH).format(first=first, second=second, a_first=with_article(first))
    return Instruction("use", (first, second), prompt.format(first, second), answer)


KINDS: dict[str, Callable[[random.Random], Instruction]] = {
    "repeat": _repeat,
    "count": _count,
    "list": _list,
    "upper": _upper,
    "order": _order,
    "reverse": _reverse,
    "end with": _end_with,
    "use": _use,
}


def draw_instruction(rng: random.Random, *, held_out: bool, kind: str | None = None) -> Instruction:
    """An instruction of the wanted side of the split.

    The kind and the sorted arguments identify it, so two orders or two wordings of the same
    content never lie on both sides.
    """
    make = KINDS[kind or rng.choice(sorted(KINDS))]
    while True:
        instruction = make(rng)
        if is_held_out(instruction.kind, *sorted(instruction.args)) == held_out:
            return instruction


def _check_list(args: tuple[str, ...], answer: str) -> bool:
    how_many, first, more, second = args
    split = NUMBERS.index(how_many) + 1
    words = answer.split(", ")
    return (
        len(words) == len(set(words)) == split + NUMBERS.index(more) + 1
        and set(words[:split]) <= set(CATEGORIES[first][1])
        and set(words[split:]) <= set(CATEGORIES[second][1])
    )


def is_followed(kind: str, args: tuple[str, ...], answer: str) -> bool:
    """Whether the answer does what the instruction asks, and nothing else."""
    answer = answer.strip()
    if kind == "repeat":
        return answer.split() == [args[0]] * (NUMBERS.index(args[1]) + 1)
    if kind == "count":
        start, end = map(NUMBERS.index, args)
        return answer.replace(",", "").split() == NUMBERS[start : end + 1]
    if kind == "list":
        return _check_list(args, answer)
    if kind == "upper":
        return answer == " ".join(args).upper()
    if kind == "order":
        return answer.split(", ") == sorted(args, key=NUMBERS.index)
    if kind == "reverse":
        return answer.split(", ") == list(reversed(args))
    if match_sentence(answer, ENDINGS + BOTH) is None:
        return False
    words = re.findall(r"\w+", answer)
    if kind == "end with":
        return words[-1] == args[0]
    assert kind == "use", f"no check for the kind {kind!r}"
    return set(args) <= set(words)
