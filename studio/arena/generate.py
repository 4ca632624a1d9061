"""Making the answers of a trial: one model after the other, resumed where it was left."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from studio import __version__
from studio.arena import answers as answer_file
from studio.arena.answers import Answer, AnswerKey, Generated, missing, text_hash
from studio.arena.design import Design, Model
from studio.arena.prompts import Prompt
from studio.arena.trial import Trial, now
from studio.durable import append, json_line, locked
from studio.errors import StudioError

ENDINGS = ("stop", "length")


class Speaker(Protocol):
    """A model that is ready to answer.

    `identity`: what is known of it, under the names fingerprint, dtype, quantisation, engine.
    `prompt_format`: the name of the chat template it is asked in.
    """

    identity: Mapping[str, str]
    prompt_format: str

    def answer(self, prompt: Prompt, sampling: Mapping[str, Any], seed: int) -> Generated:
        """One answer; `sampling` has every parameter, max_tokens among them."""


OpenModel = Callable[[Model], AbstractContextManager[Speaker]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the answers are: `done` of `total`, `resumed` of them from earlier runs; `tokens`
    made in this run's `seconds`; `left` seconds, None before the first answer."""

    model: str
    done: int
    total: int
    resumed: int
    tokens: int
    seconds: float

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at this run's pace."""
        fresh = self.done - self.resumed
        return (self.total - self.done) * self.seconds / fresh if fresh else None


def generate(
    trial: Trial,
    open_model: OpenModel,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Make the answers that are still missing; each is safe on disk before the next is begun.

    Whatever stops it, the same call goes on. Raises StudioError if an engine ends an answer in
    any way but "stop" and "length".
    """
    found = trial.answers()
    todo = missing(trial.needed, found)
    run = _Run(trial, len(trial.needed), len(trial.needed) - len(todo), on_progress)
    for model in trial.design.used_models:
        keys = [key for key in todo if key.model == model.label]
        if keys:
            with open_model(model) as speaker:
                for key in keys:
                    run.make(key, speaker)


class _Run:
    """One run over the missing answers: counts, and stores what comes."""

    def __init__(
        self, trial: Trial, total: int, resumed: int, on_progress: Callable[[Progress], None]
    ) -> None:
        self.trial, self.total, self.resumed = trial, total, resumed
        self.done, self.tokens = resumed, 0
        self.prompts = {prompt.id: prompt for prompt in trial.prompts}
        self.on_progress, self.started = on_progress, time.monotonic()

    def make(self, key: AnswerKey, speaker: Speaker) -> None:
        prompt, design = self.prompts[key.prompt], self.trial.design
        sampling = sampling_for(design, prompt)
        seed = seed_of(design, key)
        generated = speaker.answer(prompt, sampling, seed)
        if generated.finish_reason not in ENDINGS:
            raise StudioError(
                f'{key.model}, prompt {key.prompt}: the engine ended with "'
                f'{generated.finish_reason}"; run the same command again to go on'
            )
        answer = Answer(
            model=key.model,
            prompt=key.prompt,
            draw=key.draw,
            text=generated.text,
            finish_reason=generated.finish_reason,
            prompt_tokens=generated.prompt_tokens,
            completion_tokens=generated.completion_tokens,
            seconds=round(generated.seconds, 4),
            left_out=generated.left_out,
            seed=seed,
            sampling=sampling,
            prompt_format=speaker.prompt_format,
            identity=dict(speaker.identity),
            messages_hash=text_hash(json_line(prompt.as_data())),
            made=now(),
            app_version=__version__,
        )
        with locked(self.trial.folder):
            append(self.trial.folder / answer_file.FILE, [json_line(answer.as_data())])
        self.done += 1
        self.tokens += generated.completion_tokens
        seconds = time.monotonic() - self.started
        self.on_progress(
            Progress(key.model, self.done, self.total, self.resumed, self.tokens, seconds)
        )


def sampling_for(design: Design, prompt: Prompt) -> dict[str, Any]:
    """The design's sampling with the prompt's limit: the smaller of the two limits counts."""
    limit = min(prompt.max_tokens, int(design.sampling.get("max_tokens", prompt.max_tokens)))
    return {**design.sampling, "max_tokens": limit}


def seed_of(design: Design, key: AnswerKey) -> int:
    """The seed of an answer: the same for all models, different for prompts and draws."""
    return int(text_hash(f"{design.seed}\x1f{key.prompt}\x1f{key.draw}")[:8], 16) >> 1
