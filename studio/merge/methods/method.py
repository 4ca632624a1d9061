"""What a merge method is: one pure function from a Gram matrix to coefficients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from studio.merge.gradient import Floats

TINY_NORM = 1e-8


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter of a method.

    `per_input`: one value for each input instead of one for the stage. `default`: None if the
    recipe must give it. `is_switch`: true or false in the recipe, 1.0 or 0.0 here. `is_fixed`: a
    number that tuning leaves alone. `skips_base`: the base takes none and has 0.
    """

    per_input: bool
    default: float | None
    is_switch: bool = False
    is_fixed: bool = False
    skips_base: bool = False

    @property
    def is_tuned(self) -> bool:
        """Whether its values are anchors, for curves and search."""
        return not (self.is_switch or self.is_fixed)


@dataclass(frozen=True, slots=True)
class Method:
    """A merge method whose result is a linear combination of its inputs.

    `coefficients(gram, values)` gets the Gram matrices of a stage's inputs for T tensors,
    (T, k, k), and its settings, (T,) or for per-input ones (T, k); it returns (T, k).
    `inputs` is the exact number of inputs, None for any number from `least` up. `base` says what
    the first input is where the method gives it a part of its own and recipes must name it.
    `refused`: switches of mergekit's that make it another method, and why they are not supported.
    """

    name: str
    coefficients: Callable[[Floats, Mapping[str, Floats]], Floats]
    settings: Mapping[str, Setting]
    inputs: int | None = None
    least: int = 1
    base: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_base(self) -> bool:
        """Whether a recipe must name the base."""
        return self.base is not None


def cosine(gram: Floats) -> Floats:
    """Cosine of the angle between the two tensors of each (T, 2, 2) Gram matrix, in [-1, 1]."""
    norms = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0.0))
    norms = np.where(norms > TINY_NORM, norms, 1.0)
    cos: Floats = np.clip(gram[:, 0, 1] / (norms[:, 0] * norms[:, 1]), -1.0, 1.0)
    return cos
