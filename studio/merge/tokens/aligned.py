"""The weights of aligned sources: for every group of tokens its own, found together.

A stage's coefficients belong to the whole tensor: the inner products that they follow from are the
sums over the groups in the stage's vocabulary. See `alignment` for what groups are.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from studio.merge.gradient import Floats
from studio.merge.journal import TensorRecord
from studio.merge.methods import METHODS
from studio.merge.plan import Plan
from studio.merge.recipe import Recipe
from studio.merge.tensors import rows_of
from studio.merge.tokens.alignment import Alignment, fill
from studio.weights.gram import from_difference_basis

APPROXIMATE = (
    "Embeddings and lm_head are shown approximately: a token that a model lacks is filled in once "
    "here, but anew in each stage of the merge, which is exact."
)


def is_approximate(plan: Plan, recipe: Recipe) -> bool:
    """Whether a preview of the recipe is not exact for aligned tensors, as `APPROXIMATE` tells.

    `plan`: of the models that the preview measures; the reason is in `filled_gram`.
    """
    alignment, models = plan.alignment, len(plan.sources)
    if alignment is None or len(recipe.stages) == 1 and models == len(recipe.sources):
        return False
    lacks = any(len(present) < models for present in alignment.present.values())
    return lacks or any(rows_of(source) != alignment.rows for source in plan.sources)


def aligned_record(
    recipe: Recipe,
    totals: Floats,
    settings: Sequence[Mapping[str, Floats]],
    alignment: Alignment,
) -> TensorRecord:
    """What was found of an aligned tensor.

    `totals`: the Gram matrices (C, n, n) of the groups, each in the difference basis of the sources
    that have it; the rest as in `solve_groups`.
    """
    grams = np.zeros_like(totals)
    for group, present in alignment.present.items():
        own = np.ix_(present, present)
        grams[group][own] = from_difference_basis(totals[group][own])
    weights = solve_groups(recipe, grams, settings, alignment)
    gram = filled_gram(grams, alignment)
    return TensorRecord(gram.tolist(), weights[alignment.main].tolist(), weights.tolist())


def solve_groups(
    recipe: Recipe,
    grams: Floats,
    settings: Sequence[Mapping[str, Floats]],
    alignment: Alignment,
) -> Floats:
    """The weights of the n sources in the result's rows of each group, (C, n).

    `grams`: (C, n, n) over `recipe.sources`, of the groups' rows, zeros for sources that have none;
    `settings`: of every stage for this tensor alone, (1,) or (1, k).
    """
    shape = (len(grams), len(recipe.sources))
    mixes = {
        model: np.broadcast_to(row, shape)
        for model, row in zip(recipe.sources, np.eye(shape[1]), strict=True)
    }
    weights = np.zeros(shape)
    for stage, values, tokens in zip(recipe.stages, settings, alignment.stages, strict=True):
        inputs = tokens.fills @ np.stack([mixes[model] for model in stage.models], axis=1)
        inner = np.einsum("c,ckn,cnm,clm->kl", tokens.counts, inputs, grams, inputs)
        coefficients = METHODS[stage.method].coefficients(inner[None], values)[0]
        weights = np.einsum("k,ckn->cn", coefficients, inputs)
        if stage.name is not None:
            mixes[stage.name] = weights
    return weights


def filled_gram(grams: Floats, alignment: Alignment) -> Floats:
    """The Gram matrix (n, n) of the sources in the result's vocabulary, each filled in like inputs.

    For a recipe of one stage it is that of the stage's inputs. Of several stages each fills in its
    own inputs, some of them mixes, over its own vocabulary, which this leaves out: it is for
    previews, not for merging. Where 1 % of the tokens are filled in, the weights of fine-tunes of
    one base were off by 4e-5, those of unrelated models by 4e-3.
    """
    total: Floats = np.zeros_like(grams[0])
    for group, present in alignment.present.items():
        if alignment.stages[-1].counts[group]:
            made_of = fill([number in present for number in range(len(total))])
            total = total + made_of @ grams[group] @ made_of.T
    return total
