"""What the studio knows of the models it previews, and finds out in the background."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from studio.errors import StudioError
from studio.merge.geometry.grams import Grams
from studio.merge.geometry.preview import models_of
from studio.merge.geometry.sampling import Estimate, estimates
from studio.merge.gradient import Floats
from studio.merge.layout import Layout
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check, folder_here
from studio.merge.recipe import Recipe
from studio.merge.tokens.alignment import vocabulary_of
from studio.ui.merge.measuring import Measuring

log = logging.getLogger(__name__)

MEASURED_UP_TO = 1_000_000_000  # bytes of all sources together
SAMPLED_ROUNDS = 4
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

    `sizes`: elements of each of the T tensors; `gram`: (T, m, m) once measured, `estimate` before.
    `missing`: models that are not on this machine; then `layout` is that of a Llama of the assumed
    depth. `problem`: why models that are here cannot merge. `progress`: of measuring, 0 … 1.
    `is_wanted`: someone asked for exact figures.
    """

    layout: Layout
    sizes: Sequence[int]
    missing: tuple[str, ...] = ()
    problem: str = ""
    plan: Plan | None = None
    gram: Floats | None = None
    estimate: Estimate | None = None
    is_measuring: bool = False
    progress: float | None = None
    is_large: bool = False
    is_wanted: bool = False
    states: list[object] = field(default_factory=list)
    looked: float = 0.0

    @property
    def known(self) -> tuple[Floats | None, Estimate | None]:
        """The Gram matrices, and what they come from if they are estimates."""
        exact, estimate = self.gram, self.estimate
        if exact is not None or estimate is None:
            return exact, None
        return estimate.gram, estimate


class Bases:
    """Keeps what it found out about each set of models: in memory, Gram matrices for good.

    `command`: the studio's command line, which measures large ones.
    """

    def __init__(self, data_dir: Path, command: Sequence[str]) -> None:
        self._grams = Grams(data_dir / "grams", log.warning)
        self._measuring = Measuring(data_dir, command)
        self._bases: dict[tuple[tuple[str, ...], int, str | None], Basis] = {}
        self._folders: dict[str, tuple[float, Path | None]] = {}
        self._lock = threading.Lock()

    def of(self, recipe: Recipe, layers: int, base: str | None) -> Basis:
        """The basis of the recipe's sources and the base; what is not known is looked for.

        `layers`: the depth to assume if they are not here.
        """
        models = models_of(recipe, base)
        with self._lock:
            folders = [self._folder(model) for model in models]
            missing = tuple(m for m, f in zip(models, folders, strict=True) if f is None)
            key = (models, layers if missing else 0, vocabulary_of(recipe))
            basis = self._bases.get(key)
            now = time.monotonic()
            is_due = basis is None or now > basis.looked + RETRY_SECONDS
            if basis is None or (is_due and _is_outdated(basis)):
                here = {m: str(f) for m, f in zip(models, folders, strict=True) if f is not None}
                if missing:
                    basis = _assumed(layers, missing=missing)
                else:
                    basis = look(recipe, base, here, layers)
                self._bases[key] = basis
                while len(self._bases) > MOST_BASES:
                    del self._bases[next(iter(self._bases))]
            if is_due:
                basis.looked = now
                self._begin(basis, self._find)
        return basis

    def measure(self, basis: Basis) -> None:
        """Begin to measure exactly, in a process, unless that is under way, done or impossible."""
        with self._lock:
            basis.is_wanted = True
            self._begin(basis, self._measure)

    def cancel(self, basis: Basis) -> None:
        """Let an exact measurement that was asked for end; what is shown goes on being shown."""
        basis.is_wanted = False

    def close(self) -> None:
        """Stop measuring."""
        self._measuring.close()

    def _folder(self, model: str) -> Path | None:
        """Where the model is on this machine, as of the last seconds."""
        now = time.monotonic()
        looked, folder = self._folders.get(model, (-np.inf, None))
        if now > looked + RETRY_SECONDS or (folder is not None and not folder.is_dir()):
            folder = folder_here(model)
            self._folders[model] = (now, folder)
        return folder

    def _begin(self, basis: Basis, work: Callable[[Basis, Plan], None]) -> None:
        """Do the work in the background if there is anything to find out."""
        if basis.plan is None or basis.is_measuring or basis.gram is not None or basis.problem:
            return
        basis.is_measuring = True
        arguments = (basis, basis.plan, work)
        threading.Thread(target=self._work, args=arguments, daemon=True).start()

    def _work(self, basis: Basis, plan: Plan, work: Callable[[Basis, Plan], None]) -> None:
        try:
            work(basis, plan)
        except StudioError as error:
            basis.problem = str(error)
        except OSError as error:
            log.exception("the sources could not be measured")
            basis.problem = f"the sources could not be read ({error}); mend that and wait a moment"
        finally:
            basis.is_measuring, basis.progress = False, None

    def _find(self, basis: Basis, plan: Plan) -> None:
        """Take what was measured before; measure small sources, sample blocks of large ones."""
        found = self._grams.load(plan)
        if not np.isnan(found).any():
            basis.gram = found
        elif not basis.is_large:
            from studio.merge.geometry.measure import known_or_measured  # loads compiled loops

            basis.gram = known_or_measured(plan, self._grams, _progress_of(basis, plan))
        elif basis.estimate is None:
            for estimate in estimates(plan, SAMPLED_ROUNDS):
                basis.estimate = estimate
                if basis.is_wanted:
                    break
        if basis.gram is None and basis.is_wanted:
            self._measure(basis, plan)

    def _measure(self, basis: Basis, plan: Plan) -> None:
        basis.progress = 0.0

        def show(part: float) -> None:
            basis.progress = part

        if not self._measuring.run(plan.recipe, show, lambda: basis.is_wanted):
            return
        found = self._grams.load(plan)
        if np.isnan(found).any():
            raise StudioError("the sources changed while they were measured; measure them again")
        basis.gram = found


def look(recipe: Recipe, base: str | None, here: dict[str, str], layers: int) -> Basis:
    """The basis of models that are `here`, in the folders given for them.

    `layers`: the depth to assume if they cannot merge.
    """
    from studio.merge.geometry.measure import measuring

    try:
        plan = check(measuring(recipe, base, here), Options())
        states: list[object] = [source.state() for source in plan.sources]
    except StudioError as error:
        return _assumed(layers, problem=str(error))
    jobs = {job.name: job.numel for shard in plan.shards for job in shard.tensors}
    basis = Basis(plan.layout, [jobs[name] for name in plan.layout.names], plan=plan, states=states)
    basis.is_large = plan.bytes_read > MEASURED_UP_TO
    return basis


def llama(layers: int) -> tuple[Layout, list[int]]:
    """The layout of a Llama with so many layers, and its tensors' relative sizes."""
    sizes = {"model.embed_tokens.weight": 32000, "model.norm.weight": 1, "lm_head.weight": 32000}
    for layer in range(layers):
        for tensor, size in LAYER_TENSORS.items():
            sizes[f"model.layers.{layer}.{tensor}.weight"] = size
    layout = Layout.of(list(sizes), layers)
    return layout, [sizes[name] for name in layout.names]


def _assumed(layers: int, missing: tuple[str, ...] = (), problem: str = "") -> Basis:
    layout, sizes = llama(layers)
    return Basis(layout, sizes, missing=missing, problem=problem)


def _is_outdated(basis: Basis) -> bool:
    """Whether there may be more to say of the models than when they were looked at."""
    if basis.plan is None or basis.problem:
        return True
    try:
        return basis.states != [source.state() for source in basis.plan.sources]
    except OSError:
        return True


def _progress_of(basis: Basis, plan: Plan) -> Callable[[int], None]:
    read = 0

    def on_tensor(size: int) -> None:
        nonlocal read
        read += size
        basis.progress = read / max(plan.bytes_read, 1)

    return on_tensor
