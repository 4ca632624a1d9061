"""The numbers behind the charts: what a recipe does to each layer, in milliseconds."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studio.errors import StudioError
from studio.merge.gradient import Floats
from studio.merge.layout import Layout
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.preview import Preview, preview
from studio.merge.recipe import Recipe

log = logging.getLogger(__name__)

MEASURED_UP_TO = 1_000_000_000  # bytes of all sources together
MOST_LAYERS = 400
RETRY_SECONDS = 20.0
MOST_BASES = 16
# A Llama layer's tensors and about how their sizes relate.
LAYER_TENSORS = {
    "input_layernorm": 1, "self_attn.q_proj": 4096, "self_attn.k_proj": 4096,
    "self_attn.v_proj": 4096, "self_attn.o_proj": 4096, "post_attention_layernorm": 1,
    "mlp.gate_proj": 11008, "mlp.up_proj": 11008, "mlp.down_proj": 11008,
}  # fmt: skip


@dataclass(slots=True)
class Basis:
    """What is known of a set of sources.

    `sizes`: elements of each of the T tensors; `gram`: (T, n, n) once measured. `missing`: sources
    that are not on this machine; then `layout` is that of a Llama of the assumed depth. `problem`:
    why sources that are here cannot merge.
    """

    layout: Layout
    sizes: Sequence[int]
    missing: tuple[str, ...] = ()
    problem: str = ""
    gram: Floats | None = None
    is_measuring: bool = False
    is_large: bool = False
    made: float = 0.0


class Tuner:
    """Previews recipes; keeps what it found out about each set of sources in memory."""

    def __init__(self) -> None:
        self._bases: dict[tuple[tuple[str, ...], int], Basis] = {}
        self._lock = threading.Lock()

    def preview(self, recipe: Recipe, layers: int) -> dict[str, Any]:
        """The preview as plain lists; `layers` counts where the sources are not here.

        Raises StudioError for a recipe that does not fit its models.
        """
        if type(layers) is not int or not 1 <= layers <= MOST_LAYERS:
            raise StudioError(f"{layers!r} layers: use a whole number from 1 to {MOST_LAYERS}")
        basis = self._basis(recipe, layers)
        found = preview(recipe, basis.layout, basis.sizes, basis.gram)
        return {
            "layers": basis.layout.num_layers,
            "missing": list(basis.missing),
            "problem": basis.problem,
            "exact": basis.gram is not None,
            "measuring": basis.is_measuring,
            "large": basis.is_large,
            **_lists(found),
        }

    def _basis(self, recipe: Recipe, layers: int) -> Basis:
        missing = tuple(m for m in recipe.sources if not (Path(m) / "config.json").is_file())
        key = (recipe.sources, layers if missing else 0)
        with self._lock:
            basis = self._bases.get(key)
            now = time.monotonic()
            is_old = basis and (basis.missing or basis.problem) and now > basis.made + RETRY_SECONDS
            if basis is None or is_old:
                basis = Basis(*llama(layers), missing=missing) if missing else look(recipe, layers)
                basis.made = now
                self._bases[key] = basis
                while len(self._bases) > MOST_BASES:
                    del self._bases[next(iter(self._bases))]
            return basis


def look(recipe: Recipe, layers: int) -> Basis:
    """The basis of sources that are here; `layers`: the depth to assume if they cannot merge.

    Small ones begin to be measured in the background.
    """
    # A chat template may be a file of anyone's choice, and no chart depends on it.
    stages = tuple(replace(stage, chat_template=None) for stage in recipe.stages)
    try:
        plan = check(Recipe(stages), Options())
    except StudioError as error:
        return Basis(*llama(layers), problem=str(error))
    jobs = {job.name: job.numel for shard in plan.shards for job in shard.tensors}
    basis = Basis(plan.layout, [jobs[name] for name in plan.layout.names])
    basis.is_large = plan.bytes_read > MEASURED_UP_TO
    if not basis.is_large:
        basis.is_measuring = True
        threading.Thread(target=_measure, args=(basis, plan), daemon=True).start()
    return basis


def llama(layers: int) -> tuple[Layout, list[int]]:
    """The layout of a Llama with so many layers, and its tensors' relative sizes."""
    sizes = {"model.embed_tokens.weight": 32000, "model.norm.weight": 1, "lm_head.weight": 32000}
    for layer in range(layers):
        for tensor, size in LAYER_TENSORS.items():
            sizes[f"model.layers.{layer}.{tensor}.weight"] = size
    layout = Layout.of(list(sizes), layers)
    return layout, [sizes[name] for name in layout.names]


def _measure(basis: Basis, plan: Plan) -> None:
    """Fill in the Gram matrices; without them the preview stays an approximation."""
    try:
        from studio.merge.measure import measure  # torch: not needed before the first look

        basis.gram = measure(plan)
    except StudioError as error:
        basis.problem = str(error)
    except OSError:
        log.exception("the sources could not be measured")
    finally:
        basis.is_measuring = False


def _lists(found: Preview) -> dict[str, Any]:
    rows, shares = found.by_row(found.shares)
    _, similarity = found.by_row(found.similarity)
    return {
        "rows": rows,
        "sources": list(found.sources),
        "shares": _short(shares),
        "similarity": _short(similarity),
        "overall": _short(np.average(found.shares, axis=0, weights=found.sizes)),
        "stages": [
            {
                "values": {name: _short(found.by_row(v)[1]) for name, v in stage.values.items()},
                "degrees": None
                if stage.cosine is None
                else _short(found.by_row(np.degrees(np.arccos(stage.cosine)))[1]),
            }
            for stage in found.stages
        ],
    }


def _short(values: Floats) -> list[Any]:
    return list(np.round(values, 5).tolist())
