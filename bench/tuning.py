"""The computation behind a move of an anchor, in this process, without a page.

For 80 layers of 9 tensors and 3 outside of them, three sources and the house recipe's three stages;
their vectors are drawn at random. `geometry` is everything from the recipe to the numbers of every
tensor; `charts` adds the means over rows, the rounding and the words; `answer` the JSON. Beside it,
the time to load Gram matrices that were kept, for as many tensors.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from bench.browser import SHAPE
from bench.contest import program
from bench.contestants import house_recipe
from bench.errors import BenchError
from bench.models import make_models
from bench.report import Bar

SOURCES = ("a", "b", "c")
BASE = "base"
GEOMETRY_BAR, LOAD_BAR = 10.0, 500.0  # ms
COMPUTED = (
    "shares", "similarity", "norm_ratio", "distance", "survives", "stage_cosines", "effects",
    "overall",
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """One thing that was timed again and again; ms."""

    what: str
    times: list[float]

    @property
    def p95(self) -> float:
        """What 19 of 20 times stayed below."""
        return quantiles(self.times, n=20)[-1]


def tune(folder: Path, rounds: int) -> list[Timing]:
    """Time everything in a process of its own; models to measure are made in `folder`.

    This one stays small, for those it measures.
    """
    models = [folder / "tuning" / name for name in SOURCES]
    make_models(SHAPE, models)
    timed = program("bench.tuning", str(folder), str(rounds), *map(str, models))
    return [Timing(what, times) for what, times in json.loads(timed).items()]


def measure(folder: Path, rounds: int, models: list[Path]) -> list[Timing]:
    """The timings, in this process; the models' Gram matrices are kept in `folder`."""
    import numpy as np

    from studio.merge.geometry.charts import charts
    from studio.merge.geometry.preview import Preview, preview
    from studio.merge.geometry.uncertainty import errors
    from studio.merge.layout import Layout
    from studio.merge.recipe_files.recipe_yaml import load_recipe

    recipe = load_recipe(house_recipe([Path(name) for name in SOURCES]), "recipe.yaml")
    names = tensor_names()
    layout = Layout.of(names, SHAPE.layers)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(names), 1, 40)) + 0.1 * rng.normal(size=(len(names), 4, 40))
    gram = vectors @ vectors.transpose(0, 2, 1)
    sizes = rng.integers(1, 100, len(names)).tolist()

    def exact(base: str | None) -> Preview:
        return preview(recipe, layout, sizes, gram if base else gram[:, :3, :3], base)

    def geometry(base: str | None) -> None:
        found = exact(base)
        for name in COMPUTED:
            getattr(found, name)

    steps = 1e-3 * gram[:, None, :3, :3] * rng.normal(size=(len(names), 6, 1, 1))

    def estimated() -> None:
        found = exact(None)
        charts(found, errors(found, steps))

    return [
        _time("geometry", rounds, lambda: geometry(None)),
        _time("geometry, task vectors", rounds, lambda: geometry(BASE)),
        _time("charts", rounds, lambda: charts(exact(None))),
        _time("charts, task vectors", rounds, lambda: charts(exact(BASE))),
        _time("charts, estimated with error bars", rounds, estimated),
        _time("answer", rounds, lambda: json.dumps(charts(exact(None)), allow_nan=False)),
        _load(folder, rounds, models),
    ]


def tensor_names() -> list[str]:
    """Those of a Llama of the shape."""
    attention = [f"self_attn.{letter}_proj" for letter in "qkvo"]
    mlp = [f"mlp.{word}_proj" for word in ("gate", "up", "down")]
    parts = [*attention, *mlp, "input_layernorm", "post_attention_layernorm"]
    layers = [f"model.layers.{n}.{part}.weight" for n in range(SHAPE.layers) for part in parts]
    return ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", *layers]


def _load(folder: Path, rounds: int, models: list[Path]) -> Timing:
    """Load what was kept of three models, fingerprints included."""
    from studio.merge.geometry.grams import Grams
    from studio.merge.geometry.measure import known_or_measured, measuring
    from studio.merge.plan import Options
    from studio.merge.preflight import check
    from studio.merge.recipe_files.recipe_yaml import load_recipe

    plan = check(measuring(load_recipe(house_recipe(models), "recipe.yaml"), None), Options())

    def fail(text: str) -> None:
        raise BenchError(text)

    grams = Grams(folder / "grams", fail)
    known_or_measured(plan, grams)
    return _time("kept Gram matrices loaded", rounds, lambda: grams.load(plan))


def _time(what: str, rounds: int, work: Callable[[], object]) -> Timing:
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return Timing(what, times)


def tuning_text(found: list[Timing]) -> str:
    """The table and the bars."""
    lines = [
        f"\ntuning: {SHAPE.layers} layers × 9 tensors × 3 sources, the computation alone, ms",
        f"{'':36}{'runs':>6}{'median':>9}{'p95':>8}{'max':>8}",
    ]
    for timing in found:
        lines.append(
            f"{timing.what:36}{len(timing.times):>6}{median(timing.times):>9.2f}"
            f"{timing.p95:>8.2f}{max(timing.times):>8.2f}"
        )
    return "\n".join([*lines, *map(str, tuning_bars(found))])


def tuning_bars(found: list[Timing]) -> list[Bar]:
    """The geometry in 10 ms, and what was kept there in half a second."""
    middle = {timing.what: median(timing.times) for timing in found}
    loading = found[-1].what
    return [
        Bar(f"{what}: median < {limit:g} ms", f"{middle[what]:.2f} ms", middle[what] < limit)
        for what, limit in (("geometry", GEOMETRY_BAR), (loading, LOAD_BAR))
    ]


if __name__ == "__main__":
    timings = measure(Path(sys.argv[1]), int(sys.argv[2]), [Path(each) for each in sys.argv[3:]])
    print(json.dumps({timing.what: timing.times for timing in timings}))
