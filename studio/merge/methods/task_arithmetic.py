"""Task arithmetic (Ilharco et al. 2022): the base plus the weighted changes that others made to it.

    base + λ · Σ w_i (x_i - base), with `normalize` divided by Σ w_i

Nothing is sparsified: that is what makes it a mix of whole tensors.
"""

from collections.abc import Mapping

import numpy as np

from studio.merge.gradient import Floats
from studio.merge.methods.method import Method, Setting

TINY_SUM = 1e-8  # mergekit leaves a smaller sum of weights alone


def coefficients(gram: Floats, values: Mapping[str, Floats]) -> Floats:
    """Of the base, then of the others, (T, k); `weight` is (T, k) with 0 for the base."""
    weight = values["weight"]
    total = weight.sum(axis=1)
    divides = (values["normalize"] > 0) & (np.abs(total) >= TINY_SUM)
    scaled: Floats = weight * (values["lambda"] / np.where(divides, total, 1.0))[:, None]
    scaled[:, 0] = 1 - scaled.sum(axis=1)
    return scaled


TASK_ARITHMETIC = Method(
    name="task_arithmetic",
    coefficients=coefficients,
    settings={
        "weight": Setting(per_input=True, default=None, skips_base=True),
        "lambda": Setting(per_input=False, default=1.0),
        "normalize": Setting(per_input=False, default=0.0, is_switch=True),
    },
    base="the model that the others were tuned from",
)
