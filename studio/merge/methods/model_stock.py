"""Model stock (Jang et al. 2024): how far to go from the base towards the mean of its fine-tunes.

With d_i = x_i - base for N fine-tunes and c the mean cosine between two different d_i, d_j

    t = N·c / (1 + (N - 1)·c),    result = t · mean(x_i) + (1 - t) · base

By mergekit's rules a product of two norms counts as at least 1e-6, and where 1 + (N - 1)·c
vanishes the base stays.
"""

from collections.abc import Mapping

import numpy as np

from studio.merge.gradient import Floats
from studio.merge.methods.method import Method

LEAST_NORMS = 1e-6
SINGULAR = 1e-6


def coefficients(gram: Floats, values: Mapping[str, Floats]) -> Floats:
    """Of the base, then of the fine-tunes, (T, k): the fine-tunes all have the same."""
    del values
    count = gram.shape[1] - 1
    inner = gram[:, 1:, 1:] - gram[:, 1:, :1] - gram[:, :1, 1:] + gram[:, :1, :1]
    norms = np.sqrt(np.maximum(np.diagonal(inner, axis1=1, axis2=2), 0.0))
    products = np.maximum(norms[:, :, None] * norms[:, None, :], LEAST_NORMS)
    first, second = np.triu_indices(count, 1)
    cosines = np.clip((inner / products)[:, first, second], -1.0, 1.0).mean(axis=1)
    divisor = 1 + (count - 1) * cosines
    is_singular = np.abs(divisor) < SINGULAR
    t = np.where(is_singular, 0.0, count * cosines / np.where(is_singular, 1.0, divisor))
    return np.concatenate([(1 - t)[:, None], np.repeat(t[:, None] / count, count, axis=1)], axis=1)


MODEL_STOCK = Method(
    name="model_stock",
    coefficients=coefficients,
    settings={},
    least=3,
    base="the model that the others were tuned from",
    refused={"filter_wise": "it gives every row of a tensor an angle of its own"},
)
