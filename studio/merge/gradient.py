"""Values that vary over the layers of a model, as mergekit's recipes write them.

A parameter is a tuple of rules; the first rule whose filter matches a tensor's name gives its
value. A rule's anchors are equally spaced over the position 0 … 1 and joined by straight lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """Anchors for the tensors whose name contains `filter` (None: for all of them).

    One anchor is a constant. Several are a gradient from the first layer to the last.
    """

    anchors: tuple[float, ...]
    filter: str | None = None

    def __post_init__(self) -> None:
        assert self.anchors, "a rule needs at least one anchor"

    def matches(self, tensor: str) -> bool:
        """Whether this rule is for `tensor`: a case-sensitive substring test, no patterns."""
        return self.filter is None or self.filter in tensor


Parameter = tuple[Rule, ...]


def constant(value: float) -> Parameter:
    """The parameter that is `value` for every tensor."""
    return (Rule((value,)),)


def at(anchors: Sequence[float], positions: Floats) -> Floats:
    """The gradient's value at each position (0 = first layer, 1 = last layer)."""
    return np.interp(positions, np.linspace(0.0, 1.0, len(anchors)), anchors)


def evaluate(levels: Sequence[Parameter], tensors: Sequence[str], positions: Floats) -> Floats:
    """The value for each tensor, NaN where no rule of any level matches.

    `levels` go from the innermost (a slice's own setting) to the outermost (the recipe's): where
    no rule of a level matches, the next level is asked.
    """
    values = np.full(len(tensors), np.nan)
    open_ = np.ones(len(tensors), dtype=bool)
    for rule in (rule for level in levels for rule in level):
        matching = True if rule.filter is None else [rule.matches(name) for name in tensors]
        hit = open_ & np.array(matching)
        values[hit] = at(rule.anchors, positions[hit])
        open_ &= ~hit
    return values
