"""Spherical linear interpolation between two tensors (Shoemake 1985), by mergekit's rules.

With cos = <a, b> / (|a| |b|) and angle = arccos(cos), the result α·a + β·b has

    |cos| > 0.9995:  α = 1 - t,                          β = t
    otherwise:       α = sin((1 - t)·angle) / sin(angle),  β = sin(t·angle) / sin(angle)

on the tensors as they are, not on unit vectors: where the norms of a and b differ, other tools
(sd-mecha) interpolate the norms apart and get another result. A norm of at most 1e-8 counts as 1,
so a zero tensor has cos = 0.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from studio.merge.gradient import Floats
from studio.merge.methods.method import Method, Setting, cosine

LINEAR_ABOVE = 0.9995


def is_linear(cos: Floats) -> NDArray[np.bool_]:
    """Whether two inputs are so close to parallel, or opposite, that SLERP mixes them linearly."""
    return np.asarray(np.abs(cos) > LINEAR_ABOVE)


def coefficients(gram: Floats, values: Mapping[str, Floats]) -> Floats:
    """α and β of every tensor, (T, 2), from the pairs' Gram matrices, (T, 2, 2), and t, (T,).

    t = 0 gives the first input, t = 1 the second; outside [0, 1] it extrapolates.
    """
    t = values["t"]
    cos = cosine(gram)
    linear = is_linear(cos)
    angle = np.arccos(np.where(linear, 0.0, cos))
    spherical = np.stack([np.sin((1 - t) * angle), np.sin(t * angle)], axis=1)
    spherical /= np.sin(angle)[:, None]
    return np.where(linear[:, None], np.stack([1 - t, t], axis=1), spherical)


SLERP = Method(
    name="slerp",
    coefficients=coefficients,
    settings={"t": Setting(per_input=False, default=None)},
    inputs=2,
    base="the t = 0 end",
)
