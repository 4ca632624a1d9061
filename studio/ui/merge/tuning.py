"""The numbers behind the charts: what a recipe does to each layer, in milliseconds."""

import threading
from typing import Any

from studio.errors import StudioError
from studio.merge.geometry.charts import charts, tensor_table
from studio.merge.geometry.preview import preview
from studio.merge.geometry.uncertainty import errors
from studio.merge.recipe import Recipe
from studio.merge.tokens.aligned import APPROXIMATE, is_approximate
from studio.ui.merge.bases import Bases, Basis

MOST_LAYERS = 400
MOST_WAITING = 8


class Tuner:
    """Previews recipes, a few at a time."""

    def __init__(self, bases: Bases) -> None:
        self._bases = bases
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def preview(
        self, recipe: Recipe, layers: int, base: str | None = None, *, with_heatmap: bool = True
    ) -> dict[str, Any]:
        """The charts as plain lists; `layers` counts where the sources are not here, and the recipe
        does not say how many they have.

        `base`: the model whose task vectors to show. Raises StudioError for a recipe that does not
        fit its models.
        """
        basis, base, base_problem = self._look(recipe, layers, base)
        # Asked first: whoever is told that nothing is measured any more also gets what was found.
        is_measuring, is_wanted, progress = basis.is_measuring, basis.is_wanted, basis.progress
        gram, estimate = basis.known
        with self._my_turn():
            found = preview(recipe, basis.layout, basis.sizes, gram, base)
            off = errors(found, estimate.deviations) if estimate else None
            shown = charts(found, off, with_heatmap=with_heatmap)
        return {
            "layers": basis.layout.num_layers,
            "outside": basis.layout.outside,
            "basis": "assumed" if gram is None else "estimated" if estimate else "exact",
            "sampled": round(estimate.part, 5) if estimate else None,
            "measuring": is_measuring,
            "wanted": is_wanted,
            "progress": 0.0 if progress is None and is_measuring and is_wanted else progress,
            "problem": basis.problem,
            "missing": list(basis.missing),
            "layers_named": named_layers(recipe) is not None,
            "large": basis.is_large,
            "base_problem": base_problem,
            "note": APPROXIMATE if basis.plan and is_approximate(basis.plan, recipe) else "",
            **shown,
        }

    def tensors(self, recipe: Recipe, layers: int) -> dict[str, Any]:
        """The table of every tensor: its settings, weights and shares."""
        basis, _, _ = self._look(recipe, layers, None)
        with self._my_turn():
            return tensor_table(preview(recipe, basis.layout, basis.sizes, basis.known[0]))

    def measure(self, recipe: Recipe, base: str | None = None) -> dict[str, Any]:
        """Begin to measure the sources exactly, unless that is under way or done."""
        basis, _, _ = self._look(recipe, 1, base)
        self._bases.measure(basis)
        return {"measuring": basis.is_measuring, "problem": basis.problem}

    def cancel(self, recipe: Recipe, base: str | None = None) -> dict[str, Any]:
        """Let the exact measurement of the sources end, whoever asked for it."""
        basis, _, _ = self._look(recipe, 1, base)
        self._bases.cancel(basis)
        return {}

    def _look(self, recipe: Recipe, layers: int, base: str | None) -> tuple[Basis, str | None, str]:
        """The basis to show, with the base if that can be, and else why not."""
        layers = named_layers(recipe) or layers
        if type(layers) is not int or not 1 <= layers <= MOST_LAYERS:
            raise StudioError(f"{layers!r} layers: use a whole number from 1 to {MOST_LAYERS}")
        basis = self._bases.of(recipe, layers, base)
        if base is None or not (base in basis.missing or basis.problem):
            return basis, base, ""
        problem = basis.problem or f"{base} is not on this machine"
        return self._bases.of(recipe, layers, None), None, problem

    def _my_turn(self) -> "_Turn":
        return _Turn(self._places, self._turn)


def named_layers(recipe: Recipe) -> int | None:
    """How many layers the models have by the recipe's slices, if it has any."""
    ends = (stage.slices[-1].end for stage in recipe.stages)
    return next((end for end in ends if end is not None), None)


class _Turn:
    """One computes, a few wait, and more are refused: no page can pile up work here."""

    def __init__(self, places: threading.BoundedSemaphore, turn: threading.Lock) -> None:
        self._places, self._turn = places, turn

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise StudioError("too many previews are being computed at once; move again")
        self._turn.acquire()

    def __exit__(self, *_: object) -> None:
        self._turn.release()
        self._places.release()
