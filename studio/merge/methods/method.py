"""What a merge method is: one pure function from a Gram matrix to coefficients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from studio.merge.gradient import Floats

TINY_NORM = 1e-8


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter of a method.

    `per_input`: one value for each input instead of one for the stage. `default`: None if the
    recipe must give it. `is_switch`: true or false in the recipe, 1.0 or 0.0 here.
    """

    per_input: bool
    default: float | None
    is_switch: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method whose result is a linear combination of its inputs.

    `coefficients(gram, values)` gets the Gram matrices of a stage's inputs for T tensors,
    (T, k, k), and its settings, (T,) or for per-input ones (T, k); it returns (T, k).
    `inputs` is the exact number of inputs, None for any number from one up.
    """

    name: str
    coefficients: Callable[[Floats, Mapping[str, Floats]], Floats]
    settings: Mapping[str, Setting]
    inputs: int | None
    needs_base: bool


def cosine(gram: Floats) -> Floats:
    """Cosine of the angle between the two tensors of each (T, 2, 2) Gram matrix, in [-1, 1]."""
    norms = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0.0))
    norms = np.where(norms > TINY_NORM, norms, 1.0)
    cos: Floats = np.clip(gram[:, 0, 1] / (norms[:, 0] * norms[:, 1]), -1.0, 1.0)
    return cos
