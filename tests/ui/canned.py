"""Trials with answers that nobody had to generate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from studio.arena.prompts.prompt import Prompt, prompt_from_data
from studio.arena.trials.answers import Generated
from studio.arena.trials.design import Design, Model
from studio.arena.trials.generate import Ask, Speaker, generate
from studio.arena.trials.trial import Trial, fix

# What one model answers to one prompt, on one draw.
Writer = Callable[[str, Prompt, int], str]


def plain(model: str, prompt: Prompt, draw: int) -> str:
    """Five words that tell the models apart and name none."""
    return f"{crc32(model.encode())} on {prompt.id}, draw {draw}."


def prompts(count: int, **more: Any) -> list[Prompt]:
    kinds = ("story", "list")
    subjects = "rain fog snow hail frost storm mist thunder drizzle breeze sleet gale".split()
    return [
        prompt_from_data(
            {
                "id": f"p{n}",
                "category": kinds[n % 2],
                "prompt": f"{subjects[n % 12]} {subjects[n % 12]}s, no. {n}",
                "constraints": [{"words": {"at_most": 6}}],
                **more,
            },
            "canned",
        )
        for n in range(count)
    ]


def canned_trial(
    trials: Path,
    name: str,
    labels: Sequence[str] = ("left-model", "right-model"),
    *,
    asked: Sequence[Prompt] = (),
    write: Writer = plain,
    **design: Any,
) -> Trial:
    """A trial in `trials`/`name`, fixed and with all its answers."""
    models = tuple(Model(label=label, source=f"/models/{label}") for label in labels)
    fixed = fix(
        trials / name,
        Design(
            name=name,
            project="tests",
            primary=(labels[0], labels[1]),
            prompts=("canned",),
            **{"models": models, "repeats": 0, "identical": 0, "alpha": 0, **design},
        ),
        list(asked or prompts(6)),
    )
    generate(fixed, _opened(write))
    return fixed


def _opened(write: Writer) -> Any:
    @contextmanager
    def open_model(model: Model) -> Iterator[Speaker]:
        class Canned:
            identity: Mapping[str, str] = {"engine": "canned"}
            prompt_format = "own"

            def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Generated]]:
                for ask in asks:
                    text = write(model.label, ask.prompt, ask.key.draw)
                    yield ask, Generated(text, "stop", 5, 5, 0.01)

        yield Canned()

    return open_model
