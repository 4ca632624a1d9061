"""Which prompts a model got without their oldest messages, as its context had no room for them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from studio.arena.prompts.prompt import Prompt
from studio.arena.trials.answers import Answer
from studio.arena.trials.design import Pair


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A prompt of which a model got only the latest messages; `note` says so in words."""

    prompt: str
    model: str
    left_out: int
    note: str


@dataclass(frozen=True, slots=True)
class Uneven:
    """Two models that are compared, and the prompts of which they got different messages."""

    first: str
    second: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trimming:
    """Everything that was trimmed, in the order of the prompts, and where that was uneven."""

    rows: tuple[Trimmed, ...]
    uneven: tuple[Uneven, ...]


def trimming(
    pairs: Sequence[Pair], prompts: Sequence[Prompt], answers: Iterable[Answer]
) -> Trimming:
    """What the answers tell of it. Draws of one prompt may differ: each number has its row."""
    found: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for answer in answers:
        found[answer.prompt, answer.model].add(answer.left_out)
    models = list(dict.fromkeys(model for pair in pairs for model in pair))
    rows = [
        Trimmed(prompt.id, model, count, _note(count, len(prompt.messages)))
        for prompt in prompts
        for model in models
        for count in sorted(found.get((prompt.id, model), set()) - {0})
    ]
    uneven = [Uneven(*pair, _differing(pair, prompts, found)) for pair in pairs]
    return Trimming(tuple(rows), tuple(each for each in uneven if each.prompts))


def _differing(
    pair: Pair, prompts: Sequence[Prompt], found: Mapping[tuple[str, str], set[int]]
) -> tuple[str, ...]:
    """The prompts that both models answered, each with other messages."""
    counts = ((p.id, [found.get((p.id, model), set()) for model in pair]) for p in prompts)
    return tuple(prompt for prompt, (a, b) in counts if a and b and a != b)


def _note(left_out: int, whole: int) -> str:
    return f"the oldest {left_out} of {whole} messages were left out"
