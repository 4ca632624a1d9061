"""Making the answers of a trial: one model after the other, resumed where it was left."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from studio import __version__
from studio.arena.prompts.prompt import Prompt
from studio.arena.trials import answers as answer_file
from studio.arena.trials.answers import Answer, AnswerKey, Generated, missing, text_hash
from studio.arena.trials.design import Design, Model
from studio.arena.trials.trial import Trial
from studio.durable import append, json_line, locked, now
from studio.errors import StudioError

ENDINGS = ("stop", "length")
SAME = ("fingerprint", "quantisation", "prompt format")  # for all answers of a model


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer to be made: which, to what prompt, with what sampling and seed."""

    key: AnswerKey
    prompt: Prompt
    sampling: Mapping[str, Any]
    seed: int


class Speaker(Protocol):
    """A model that is ready to answer.

    `identity`: what is known of it, under the names fingerprint, recipe (of a merge), dtype,
    quantisation, engine.
    `prompt_format`: the name of the chat template it is asked in.
    """

    identity: Mapping[str, str]
    prompt_format: str

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Generated]]:
        """The answers as they come, in any order; closing the iterator drops what has not begun."""


OpenModel = Callable[[Model], AbstractContextManager[Speaker]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the answers are: `done` of `total`, `resumed` of them from earlier runs; `tokens`
    made in this run's `seconds`; `left`: the seconds that the rest will take, at the pace of the
    answers, and of the opening of models, so far."""

    model: str
    done: int
    total: int
    resumed: int
    tokens: int
    seconds: float
    left: float


def lacking(trial: Trial) -> list[Model]:
    """The models of which answers are missing, in the order of the design."""
    labels = {key.model for key in missing(trial.needed, trial.answers())}
    return [model for model in trial.design.used_models if model.label in labels]


def generate(
    trial: Trial,
    open_model: OpenModel,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    models: Sequence[Model] | None = None,
) -> None:
    """Make the answers that are still missing; each is safe on disk before it counts as done.

    One model is open at a time: those that lack answers in the order of the design, or `models`.
    Whatever stops it, the same call goes on. Raises StudioError if an engine ends an answer in any
    way but "stop" and "length", and for a model that is no more what its first answers came from.
    """
    found = trial.answers()
    todo = missing(trial.needed, found)
    models = lacking(trial) if models is None else models
    run = _Run(trial, len(trial.needed), len(trial.needed) - len(todo), on_progress)
    for number, model in enumerate(models, start=1):
        with open_model(model) as speaker:
            run.pace.opened(number, len(models))
            _check_same(next((a for a in found.values() if a.model == model.label), None), speaker)
            run.make([key for key in todo if key.model == model.label], speaker)


def _check_same(before: Answer | None, speaker: Speaker) -> None:
    """Raise StudioError if this model's earlier answers are another one's, as far as is known."""
    if before is None:
        return
    earlier = {**before.identity, "prompt format": before.prompt_format}
    present = {**speaker.identity, "prompt format": speaker.prompt_format}
    for name in SAME:
        was, is_now = earlier.get(name), present.get(name)
        is_other = was != is_now and (name != "fingerprint" or (was and is_now))
        if is_other:
            raise StudioError(
                f"{before.model}: its {name} was {was or 'none'} when its first answers were made, "
                f"and is {is_now or 'none'} now; bring the first one back, or begin another trial"
            )


class _Pace:
    """Where the time goes: into opening models, and into answers."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._opening = self._answering = 0.0
        self._models_opened = self._models = self._answers = 0

    def opened(self, number: int, models: int) -> None:
        """The so-many-th of the models is ready."""
        self._opening += self._lap()
        self._models_opened, self._models = number, models

    def answered(self) -> float:
        """One more answer is there; the seconds since the start."""
        self._answering += self._lap()
        self._answers += 1
        return self._last - self._started

    def left(self, answers: int) -> float:
        """Seconds for so many answers, and for the models that are still to be opened."""
        models = self._models - self._models_opened
        return (
            answers * self._answering / self._answers + models * self._opening / self._models_opened
        )

    def _lap(self) -> float:
        before, self._last = self._last, time.monotonic()
        return self._last - before


class _Run:
    """One run over the missing answers: counts, and stores what comes."""

    def __init__(
        self, trial: Trial, total: int, resumed: int, on_progress: Callable[[Progress], None]
    ) -> None:
        self.trial, self.total, self.resumed = trial, total, resumed
        self.done, self.tokens = resumed, 0
        self.prompts = {prompt.id: prompt for prompt in trial.prompts}
        self.on_progress, self.pace = on_progress, _Pace()

    def make(self, keys: Sequence[AnswerKey], speaker: Speaker) -> None:
        design = self.trial.design
        asks = [
            Ask(key, prompt, sampling_for(design, prompt), seed_of(design, key))
            for key in keys
            for prompt in [self.prompts[key.prompt]]
        ]
        for ask, generated in speaker.answers(asks):
            if generated.finish_reason not in ENDINGS:
                raise StudioError(
                    f'{ask.key.model}, prompt {ask.key.prompt}: the engine ended with "'
                    f'{generated.finish_reason}"; run the same command again to go on'
                )
            self._store(_answer(ask, generated, speaker))

    def _store(self, answer: Answer) -> None:
        with locked(self.trial.folder):
            append(self.trial.folder / answer_file.FILE, [json_line(answer.as_data())])
        self.done += 1
        self.tokens += answer.completion_tokens
        seconds, left = self.pace.answered(), self.pace.left(self.total - self.done)
        self.on_progress(
            Progress(answer.model, self.done, self.total, self.resumed, self.tokens, seconds, left)
        )


def _answer(ask: Ask, generated: Generated, speaker: Speaker) -> Answer:
    return Answer(
        model=ask.key.model,
        prompt=ask.key.prompt,
        draw=ask.key.draw,
        text=generated.text,
        finish_reason=generated.finish_reason,
        prompt_tokens=generated.prompt_tokens,
        completion_tokens=generated.completion_tokens,
        seconds=round(generated.seconds, 4),
        left_out=generated.left_out,
        seed=ask.seed,
        sampling={**ask.sampling, **generated.sent},
        prompt_format=speaker.prompt_format,
        identity=dict(speaker.identity),
        messages_hash=text_hash(json_line(ask.prompt.as_data())),
        made=now(),
        app_version=__version__,
    )


def sampling_for(design: Design, prompt: Prompt) -> dict[str, Any]:
    """The design's sampling with the prompt's limit: the smaller of the two limits counts."""
    limit = min(prompt.max_tokens, int(design.sampling.get("max_tokens", prompt.max_tokens)))
    return {**design.sampling, "max_tokens": limit}


def seed_of(design: Design, key: AnswerKey) -> int:
    """The seed of an answer: the same for all models, different for prompts and draws."""
    return int(text_hash(f"{design.seed}\x1f{key.prompt}\x1f{key.draw}")[:8], 16) >> 1
