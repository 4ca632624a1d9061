"""Trials for tests: made-up models that answer at once, and raters with known preferences."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.arena.prompts.prompt import Message, Prompt
from studio.arena.rating.sitting import BlindItem, Sitting
from studio.arena.trials.answers import Generated
from studio.arena.trials.design import Design, Model
from studio.arena.trials.generate import Ask, Speaker, generate
from studio.arena.trials.trial import Trial, fix

MERGED, RIVAL = "merged", "rival"
SAMPLING: dict[str, Any] = {"temperature": 1.0, "max_tokens": 64, "stop": []}


def prompts(count: int, categories: Sequence[str] = ("story", "command")) -> list[Prompt]:
    return [
        Prompt(
            id=f"p{number}",
            category=categories[number % len(categories)],
            messages=(Message("user", f"task number {number}"),),
        )
        for number in range(count)
    ]


def design(**changes: Any) -> Design:
    values: dict[str, Any] = {
        "name": "trial",
        "project": "project",
        "models": (Model(MERGED, "models/merged"), Model(RIVAL, "models/rival")),
        "primary": (MERGED, RIVAL),
        "prompts": ("prompts/demo.yaml",),
        "sampling": SAMPLING,
    }
    return Design(**values | changes)


def known(label: str) -> dict[str, str]:
    """What is known of a parrot."""
    return {"fingerprint": f"print-{label}", "recipe": f"mix-{label}", "quantisation": "fp8"}


class Parrot:
    """A speaker whose text names its model, the prompt and the seed, so that tests can tell."""

    def __init__(self, label: str, word: str | None = None) -> None:
        self.label, self.word = label, word or label
        self.identity: Mapping[str, str] = known(label)
        self.prompt_format = "chatml"

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Generated]]:
        for ask in asks:
            yield ask, self.answer(ask)

    def answer(self, ask: Ask) -> Generated:
        text = f"{self.word} says {ask.prompt.id} {ask.seed}"
        return Generated(text, "stop", 5, len(self.word), 0.01)


@contextmanager
def parrot(model: Model) -> Iterator[Speaker]:
    yield Parrot(model.label)


def made(folder: Path, count: int = 6, open_model: Any = parrot, **changes: Any) -> Trial:
    """A trial with all its answers."""
    trial = fix(folder, design(**changes), prompts(count))
    generate(trial, open_model)
    return trial


def rate_all(sitting: Sitting, choose: Callable[[BlindItem], str]) -> int:
    """Rate everything; returns the number of votes."""
    votes = 0
    while (item := sitting.next()) is not None:
        sitting.vote(item.item_id, choose(item))
        votes += 1
    return votes


def prefers(word: str, chance: float, stream: random.Random, ties: float = 0.0) -> Any:
    """A rater who prefers the answers that begin with `word`, with that chance."""

    def choose(item: BlindItem) -> str:
        if stream.random() < ties or item.a == item.b:
            return "tie"
        favourite = stream.random() < chance
        return "a" if item.a.startswith(word) == favourite else "b"

    return choose
