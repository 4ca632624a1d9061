"""What the studio knows of the models it previews, and finds out in the background."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError
from studio.merge.gradient import Floats
from studio.merge.layout import Layout
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.preview import models_of
from studio.merge.recipe import Recipe

log = logging.getLogger(__name__)

MEASURED_UP_TO = 1_000_000_000  # bytes of all sources together
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
    """What is known of a set of models.

    `sizes`: elements of each of the T tensors; `gram`: (T, m, m) once measured. `missing`: models
    that are not on this machine; then `layout` is that of a Llama of the assumed depth. `problem`:
    why models that are here cannot merge. `progress`: of measuring, 0 … 1.
    """

    layout: Layout
    sizes: Sequence[int]
    missing: tuple[str, ...] = ()
    problem: str = ""
    plan: Plan | None = None
    gram: Floats | None = None
    is_measuring: bool = False
    progress: float | None = None
    is_large: bool = False
    made: float = 0.0


class Bases:
    """Keeps what it found out about each set of models in memory."""

    def __init__(self) -> None:
        self._bases: dict[tuple[tuple[str, ...], int], Basis] = {}
        self._lock = threading.Lock()

    def of(self, recipe: Recipe, layers: int, base: str | None) -> Basis:
        """The basis of the recipe's sources and the base.

        `layers`: the depth to assume if they are not here. Small ones begin to be measured.
        """
        models = models_of(recipe, base)
        missing = tuple(m for m in models if not (Path(m) / "config.json").is_file())
        key = (models, layers if missing else 0)
        with self._lock:
            basis = self._bases.get(key)
            now = time.monotonic()
            is_old = basis and (basis.missing or basis.problem) and now > basis.made + RETRY_SECONDS
            if basis is None or is_old:
                basis = _assumed(layers, missing=missing) if missing else look(recipe, layers, base)
                basis.made = now
                self._bases[key] = basis
                while len(self._bases) > MOST_BASES:
                    del self._bases[next(iter(self._bases))]
        if basis.plan and not basis.is_large:
            self.measure(basis)
        return basis

    def measure(self, basis: Basis) -> None:
        """Begin to measure, in the background, unless that is under way, done or impossible."""
        with self._lock:
            if basis.plan is None or basis.is_measuring or basis.gram is not None or basis.problem:
                return
            basis.is_measuring, basis.progress = True, 0.0
        threading.Thread(target=_measure, args=(basis, basis.plan), daemon=True).start()


def look(recipe: Recipe, layers: int, base: str | None) -> Basis:
    """The basis of models that are here; `layers`: the depth to assume if they cannot merge."""
    from studio.merge.measure import measuring  # torch: not needed before the first look

    try:
        plan = check(measuring(recipe, base), Options())
    except StudioError as error:
        return _assumed(layers, problem=str(error))
    jobs = {job.name: job.numel for shard in plan.shards for job in shard.tensors}
    sizes = [jobs[name] for name in plan.layout.names]
    return Basis(plan.layout, sizes, plan=plan, is_large=plan.bytes_read > MEASURED_UP_TO)


def _assumed(layers: int, missing: tuple[str, ...] = (), problem: str = "") -> Basis:
    layout, sizes = llama(layers)
    return Basis(layout, sizes, missing=missing, problem=problem)


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
    read = 0

    def on_tensor(size: int) -> None:
        nonlocal read
        read += size
        basis.progress = read / max(plan.bytes_read, 1)

    try:
        from studio.merge.measure import measure

        basis.gram = measure(plan, on_tensor)
    except StudioError as error:
        basis.problem = str(error)
    except OSError:
        log.exception("the sources could not be measured")
    finally:
        basis.is_measuring, basis.progress = False, None
