"""The exact geometry of a merge before it is made: all Gram matrices, nothing written."""

from collections.abc import Callable

import numpy as np

from studio.merge.gradient import Floats, constant
from studio.merge.methods.linear import LINEAR
from studio.merge.mixing import Mixer
from studio.merge.plan import Plan
from studio.merge.preview import Preview, models_of, preview
from studio.merge.recipe import Input, Recipe, Slice, Stage


def measure(plan: Plan, on_tensor: Callable[[int], None] = lambda size: None) -> Floats:
    """Read every source once: the Gram matrices (T, n, n) of the tensors in `plan.layout`.

    `on_tensor(bytes)` is called after each tensor with the bytes read for it. Raises StudioError
    for NaN or Inf in a source.
    """
    jobs = [job for shard in plan.shards for job in shard.tensors if job.name in plan.row_of]
    with Mixer(plan) as mixer:
        records = mixer.measure(jobs, on_tensor)
    return np.array([records[name].gram for name in plan.layout.names])


def exact_preview(plan: Plan, gram: Floats) -> Preview:
    """What the merge does to each tensor; `gram`: from `measure`."""
    sizes = {job.name: job.numel for shard in plan.shards for job in shard.tensors}
    return preview(plan.recipe, plan.layout, [sizes[n] for n in plan.layout.names], gram)


def measuring(recipe: Recipe, base: str | None) -> Recipe:
    """A recipe whose plan reads the models of a preview: the recipe's sources, then the base.

    Whether a chat template can be found is none of its concerns.
    """
    inputs = tuple(Input(model) for model in models_of(recipe, base))
    settings = {"weight": constant(1.0)}
    return Recipe((Stage(LINEAR.name, (Slice(inputs),), settings=settings),))
