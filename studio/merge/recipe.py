"""A recipe: stages of merging, from source models to one result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from studio.errors import StudioError
from studio.merge.gradient import Parameter, Rule
from studio.merge.methods import METHODS

Settings = Mapping[str, Parameter]


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a stage: a source model (folder or Hub id) or the name of another stage."""

    model: str
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slice:
    """The layers `start` … `end` - 1 of a stage and its own settings.

    `end` is None for the last layer of the model, whatever their number. A gradient runs from 0
    to 1 within its slice.
    """

    inputs: tuple[Input, ...]
    start: int = 0
    end: int | None = None
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """One merge of two or more inputs.

    The first input is the base: the t = 0 end of a slerp, and the model whose config and
    tokenizer the result takes. All slices have the same models in the same order.
    `tokenizer`: merge by token instead of by row, into the vocabulary of "base", "union" or one of
    the models.
    """

    method: str
    slices: tuple[Slice, ...]
    name: str | None = None
    settings: Settings = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    chat_template: str | None = None
    tokenizer: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The inputs' models, the base first."""
        return tuple(entry.model for entry in self.slices[0].inputs)

    @property
    def title(self) -> str:
        """The name to show for this stage: its own, or what the screen calls the last one."""
        return self.name or "Result"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages in the order in which they depend on each other; the last one is the result.

    `warnings` tells what the file said that has no effect.
    """

    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def final(self) -> Stage:
        """The stage whose result is the merged model."""
        return self.stages[-1]

    @property
    def sources(self) -> tuple[str, ...]:
        """The models to be read, each once, in order of first use; the first one is the base."""
        names = {stage.name for stage in self.stages}
        found = dict.fromkeys([self.base])
        found |= dict.fromkeys(m for s in self.stages for m in s.models if m not in names)
        return tuple(found)

    @property
    def base(self) -> str:
        """The source at the t = 0 end of every step from the result down.

        The result takes its config and tokenizer from it.
        """
        by_name = {stage.name: stage for stage in self.stages if stage.name}
        model = self.final.models[0]
        while model in by_name:
            model = by_name[model].models[0]
        return model

    @property
    def is_aligned(self) -> bool:
        """Whether a stage merges by token."""
        return any(stage.tokenizer is not None for stage in self.stages)

    @property
    def dtype(self) -> str | None:
        """The dtype of the written weights; None: the one the sources promote to."""
        return self.final.out_dtype or self.final.dtype


def ordered(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with every stage after the ones it uses and the result last.

    Raises StudioError for two stages of one name, more than one unnamed stage, a cycle, or no
    single result.
    """
    _check_names(stages)
    used = {model for stage in stages for model in stage.models}
    results = [s for s in stages if s.name is None] or [s for s in stages if s.name not in used]
    if not results:
        raise StudioError("the stages form a cycle: no stage is the result; break the cycle")
    if len(results) > 1:
        raise StudioError(
            f"{len(results)} stages could be the result ({', '.join(s.title for s in results)}); "
            "leave exactly one of them without a name"
        )
    rest = [stage for stage in stages if stage is not results[0]]
    done: list[Stage] = []
    while rest:
        open_names = {stage.name for stage in rest}
        ready = [stage for stage in rest if not open_names & set(stage.models)]
        if not ready:
            cycle = ", ".join(sorted(stage.title for stage in rest))
            raise StudioError(f"the stages {cycle} use each other in a cycle; break the cycle")
        done += ready
        rest = [stage for stage in rest if stage not in ready]
    return (*done, results[0])


def _check_names(stages: Sequence[Stage]) -> None:
    names = [stage.name for stage in stages if stage.name is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StudioError(f'two stages are named "{twice[0]}"; give each stage its own name')
    if len(stages) - len(names) > 1:
        raise StudioError(
            f"{len(stages) - len(names)} stages have no name; only the last one, the result, "
            "may be without one"
        )


def anchors(recipe: Recipe) -> tuple[float, ...]:
    """Every number that tuning may change, flat, in a fixed order (see `with_anchors`).

    Switches and fixed numbers are not among them.
    """
    found: list[float] = []

    def note(rule: Rule) -> Rule:
        found.extend(rule.anchors)
        return rule

    _with_rules(recipe, note)
    return tuple(found)


def with_anchors(recipe: Recipe, values: Sequence[float]) -> Recipe:
    """The recipe with the numbers of `anchors(recipe)` replaced by `values`, in that order."""
    left = iter(values)
    renewed = _with_rules(
        recipe, lambda rule: replace(rule, anchors=tuple(next(left) for _ in rule.anchors))
    )
    assert next(left, None) is None, "as many values as anchors"
    return renewed


def _with_rules(recipe: Recipe, renew: Callable[[Rule], Rule]) -> Recipe:
    """The recipe with each rule that tuning may change renewed, always in the same order."""

    def renewed(settings: Settings, method: str) -> Settings:
        tuned = _tunable(settings, method).items()
        return {**settings, **{name: tuple(map(renew, rules)) for name, rules in tuned}}

    stages = []
    for stage in recipe.stages:
        slices = []
        for part in stage.slices:
            inputs = tuple(
                replace(entry, settings=renewed(entry.settings, stage.method))
                for entry in part.inputs
            )
            settings = renewed(part.settings, stage.method)
            slices.append(replace(part, inputs=inputs, settings=settings))
        settings = renewed(stage.settings, stage.method)
        stages.append(replace(stage, slices=tuple(slices), settings=settings))
    return replace(recipe, stages=tuple(stages))


def _tunable(settings: Settings, method: str) -> Settings:
    known = METHODS[method].settings
    return {name: value for name, value in settings.items() if known[name].is_tuned}
