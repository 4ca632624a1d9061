"""The exact geometry of a merge before it is made: all Gram matrices, nothing written."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from studio.merge.geometry.grams import Grams, jobs_of
from studio.merge.geometry.preview import models_of
from studio.merge.gradient import Floats, constant
from studio.merge.methods.linear import LINEAR
from studio.merge.mixing import Mixer
from studio.merge.plan import Plan, TensorJob
from studio.merge.recipe import Input, Recipe, Slice, Stage
from studio.merge.tokens.alignment import vocabulary_of


def measure(
    plan: Plan,
    on_tensor: Callable[[int], None] = lambda size: None,
    jobs: Sequence[TensorJob] | None = None,
) -> Floats:
    """Read every source once: the Gram matrices (T, n, n) of `jobs`, by default `jobs_of(plan)`.

    `on_tensor(bytes)` is called after each tensor with the bytes read for it. Raises StudioError
    for NaN or Inf in a source.
    """
    jobs = jobs_of(plan) if jobs is None else jobs
    with Mixer(plan) as mixer:
        records = mixer.measure(jobs, on_tensor)
    return np.array([records[job.name].gram for job in jobs])


def known_or_measured(
    plan: Plan, grams: Grams, on_tensor: Callable[[int], None] = lambda size: None
) -> Floats:
    """The same of all jobs, but only what `grams` does not hold is read, and then kept there."""
    found = grams.load(plan)
    jobs = jobs_of(plan)
    unknown = np.flatnonzero(np.isnan(found).any(axis=(1, 2)))
    known = set(range(len(jobs))) - set(unknown.tolist())
    for row in sorted(known):
        on_tensor(jobs[row].source_bytes)
    if len(unknown):
        found[unknown] = measure(plan, on_tensor, [jobs[row] for row in unknown])
        grams.store(plan, found)
    return found


def measuring(recipe: Recipe, base: str | None, folders: Mapping[str, str] | None = None) -> Recipe:
    """A recipe whose plan reads the models of a preview: the recipe's sources, then the base.

    `folders`: where models are, instead of their names. Whether a chat template can be found is
    none of this recipe's concerns.
    """
    folders = folders or {}
    inputs = tuple(Input(folders.get(model, model)) for model in models_of(recipe, base))
    settings = {"weight": constant(1.0)}
    tokenizer = vocabulary_of(recipe)
    tokenizer = tokenizer and folders.get(tokenizer, tokenizer)
    return Recipe((Stage(LINEAR.name, (Slice(inputs),), settings=settings, tokenizer=tokenizer),))
