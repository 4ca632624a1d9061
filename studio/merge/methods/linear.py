"""The weighted sum or mean of any number of tensors (Wortsman et al. 2022, "Model soups")."""

from collections.abc import Mapping

import numpy as np

from studio.errors import StudioError
from studio.merge.gradient import Floats
from studio.merge.methods.method import Method, Setting


def coefficients(gram: Floats, values: Mapping[str, Floats]) -> Floats:
    """The weights, (T, k), divided by their sum where `normalize` is on (the default)."""
    weight, normalize = values["weight"], values["normalize"]
    total = weight.sum(axis=1)
    if np.any((np.abs(total) < 1e-12) & (normalize > 0)):
        raise StudioError(
            "linear: the weights of the inputs sum to 0, so they cannot be normalized; "
            "change a weight or set normalize: false"
        )
    divisor: Floats = np.where(normalize > 0, total, 1.0)[:, None]
    return weight / divisor


LINEAR = Method(
    name="linear",
    coefficients=coefficients,
    settings={
        "weight": Setting(per_input=True, default=None),
        "normalize": Setting(per_input=False, default=1.0, is_switch=True),
    },
)
