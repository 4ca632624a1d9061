"""The design of a trial: everything that is decided before the first answer is made.

A trial compares pairs of models on prompts. One comparison is the primary one; its outcome is the
trial's verdict, all others are described beside it. The design is written down in TRIAL.yaml,
fixed and hashed when its answers are begun, and never changed: what may be amended later is kept
with date and reason beside it (see rating/amending.py).
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from studio.arena.prompts.prompt import Prompt, choose
from studio.errors import StudioError

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/@:+()-]{0,95}")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
Pair = tuple[str, str]
FindFormat = Callable[[str, str | None], tuple[str, tuple[str, ...]] | None]


class Compare(StrEnum):
    """Which pairs are shown to raters beside the primary one."""

    PRIMARY = "primary"  # none
    MERGED = "merged"  # the merged model against each of the others
    ALL = "all"  # every pair


class Reveal(StrEnum):
    """When raters learn which model was which."""

    END = "end"  # when a rater has rated everything
    EACH = "each"  # after each vote


@dataclass(frozen=True, slots=True)
class Format:
    """A prompt format that is written out: a Jinja chat `template`, and the strings before which
    an answer ends."""

    template: str
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a trial.

    `label` names it in ratings and reports. `source` is a folder, a Hub id or the URL of a server
    that has it, with #NAME if that has several.
    `prompt_format` is the name of a chat template, or one that is written out; None is the model's
    own.
    """

    label: str
    source: str
    prompt_format: str | Format | None = None


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Which votes do not count, decided beforehand. They are shown apart, never deleted.

    `recognised`: the rater said that they recognised a model. `masked`: an answer claimed an
    identity. `faster_than`: votes that took fewer seconds than this.
    """

    recognised: bool = True
    masked: bool = False
    faster_than: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A trial's design, checked: raises StudioError naming every problem.

    `merged`: the label of the model that is meant to be better; the first of `primary`.
    `prompts`: prompt files; `categories`: those to use, empty for all; `sealed`: True for the
    split that is kept from tuning, False for the open one, None for both.
    `sampling`: every sampling parameter, for all models alike. `draws`: answers a model gives to
    each prompt. `votes_per_prompt`: planned votes on each prompt and pair, by `raters` raters
    together. `overlap`: the share of prompts, 0 to 1, on which different raters judge the very
    same answers. `repeats`, `identical`: items a rater sees to measure their noise, as a share of
    all others, 0 to 0.5. `alpha`: the part of the project's error budget this trial spends; 0 for
    a trial that only explores. `expect`, `expect_ties`: preference and share of ties the plan
    reckons with.
    """

    name: str
    project: str
    models: tuple[Model, ...]
    primary: Pair
    prompts: tuple[str, ...]
    compare: Compare = Compare.PRIMARY
    categories: tuple[str, ...] = ()
    sealed: bool | None = None
    sensitive: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 1
    draws: int = 3
    votes_per_prompt: int = 1
    raters: int = 1
    overlap: float = 0.25
    repeats: float = 0.05
    identical: float = 0.05
    alpha: float = 0.05
    expect: float = 0.65
    expect_ties: float = 0.3
    stop_early: bool = True
    reveal: Reveal = Reveal.END
    scores: tuple[str, ...] = ()
    exclusions: Exclusions = Exclusions()
    seen_prompts: bool = False

    def __post_init__(self) -> None:
        if problems := [*_model_problems(self), *_number_problems(self)]:
            raise StudioError.listing(f'the trial "{self.name}" cannot be run', problems)

    @property
    def merged(self) -> str:
        """The label of the model whose superiority the trial asks about."""
        return self.primary[0]

    @property
    def comparisons(self) -> tuple[Pair, ...]:
        """The pairs that are shown, the primary one first; the merged model is a pair's first."""
        labels = [model.label for model in self.models]
        rest = [label for label in labels if label != self.merged]
        pairs: list[Pair] = [self.primary]
        if self.compare is not Compare.PRIMARY:
            pairs += [(self.merged, label) for label in rest if label != self.primary[1]]
        if self.compare is Compare.ALL:
            pairs += itertools.combinations(rest, 2)
        return tuple(pairs)

    @property
    def used_models(self) -> tuple[Model, ...]:
        """The models that some comparison shows, in the order of the design."""
        used = {label for pair in self.comparisons for label in pair}
        return tuple(model for model in self.models if model.label in used)

    def choose(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Those of the prompts that the trial asks."""
        return choose(
            prompts,
            sensitive=self.sensitive,
            sealed=self.sealed,
            categories=self.categories or None,
        )

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON and YAML take it; `design_from_data` reads it back."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    @property
    def hash(self) -> str:
        """64 hex digits that change with any field of the design."""
        canonical = json.dumps(self.as_data(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def with_formats(design: Design, written: FindFormat) -> Design:
    """The design with every format that someone keeps for a model written out in it.

    So the hash tells when such a format is changed, and another machine needs the design alone.
    `written` tells what a model's source and the format's name stand for: a template and its stop
    strings, or None where the name says enough.
    """
    models = []
    for model in design.models:
        named = model.prompt_format
        found = None if isinstance(named, Format) else written(model.source, named)
        models.append(replace(model, prompt_format=Format(*found)) if found else model)
    return replace(design, models=tuple(models))


def check_label(label: str, what: str) -> list[str]:
    """Why a label cannot be used; empty if it can. A spreadsheet must not take it for a formula."""
    if LABEL.fullmatch(label) and label == label.strip():
        return []
    return [
        f'"{label}" cannot be {what}: use 1 to 96 letters, digits, spaces and ._/@:+()-, '
        "beginning with a letter or digit"
    ]


def _model_problems(design: Design) -> list[str]:
    labels = [model.label for model in design.models]
    problems = [p for label in labels for p in check_label(label, "a model's label")]
    if not 2 <= len(labels) <= 8:
        problems.append(f"a trial needs 2 to 8 models, there are {len(labels)}")
    if len({label.lower() for label in labels}) < len(labels):
        problems.append("two models have the same label; give each its own")
    for label in design.primary:
        if label not in labels:
            problems.append(f'primary: "{label}" is none of the models ({", ".join(labels)})')
    if design.primary[0] == design.primary[1]:
        problems.append("primary: name two different models")
    for name, what in ((design.name, "name"), (design.project, "project")):
        if not NAME.fullmatch(name):
            problems.append(f'{what}: "{name}"; use lower-case letters, digits and dashes')
    return problems


def _number_problems(design: Design) -> list[str]:
    ranges: tuple[tuple[str, float, float], ...] = (
        ("draws", 1, 20),
        ("raters", 1, 100),
        ("votes_per_prompt", 1, 50),
        ("seed", 0, 2**31 - 1),
        ("overlap", 0, 1),
        ("repeats", 0, 0.5),
        ("identical", 0, 0.5),
        ("alpha", 0, 0.2),
        ("expect", 0.51, 0.99),
        ("expect_ties", 0, 0.9),
    )
    problems = [
        f"{name} is {getattr(design, name)}; use {low} to {high}"
        for name, low, high in ranges
        if not low <= getattr(design, name) <= high
    ]
    if not 0 <= design.exclusions.faster_than <= 60:
        problems.append(f"faster_than is {design.exclusions.faster_than} s; use 0 to 60")
    if design.alpha > 0 and design.draws < 3:
        problems.append(
            f"draws is {design.draws}: an answer is luck; use at least 3, or alpha: 0 to explore"
        )
    if design.votes_per_prompt > design.draws**2:
        problems.append(
            f"{design.votes_per_prompt} votes a prompt need {design.votes_per_prompt} different "
            f"pairs of answers, {design.draws} draws give {design.draws**2}; use more draws"
        )
    if not design.prompts:
        problems.append("prompts: name at least one prompt file")
    return problems
