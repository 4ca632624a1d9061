"""The command that shows what a recipe would do, from measured or sampled sources."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from studio.cli.progress import SECONDS_BETWEEN, Bar, Display, JsonLines, emit
from studio.settings import read_settings

if TYPE_CHECKING:
    from studio.merge.geometry.grams import Grams
    from studio.merge.geometry.sampling import Estimate
    from studio.merge.gradient import Floats
    from studio.merge.plan import Options, Plan
    from studio.merge.recipe import Recipe

ROUNDS = 4
BASE_HELP = "show task vectors: what each source changed of this common base model"
SAMPLE_HELP = "estimate from blocks of the weights, in seconds, unless they were measured before"


def add_options(command: argparse.ArgumentParser) -> None:
    """Add what only previews take."""
    command.add_argument("--base", metavar="MODEL", help=BASE_HELP)
    command.add_argument("--sample", action="store_true", help=SAMPLE_HELP)


def kept_grams() -> "Grams":
    """The Gram matrices in the data folder; what is wrong with them goes to stderr."""
    from studio.merge.geometry.grams import Grams

    folder = read_settings(os.environ).data_dir / "grams"
    return Grams(folder, lambda text: print(f"note: {text}", file=sys.stderr))


def show_preview(parsed: argparse.Namespace, recipe: "Recipe", options: "Options") -> int:
    """Print the preview of a recipe that fits its sources."""
    from studio.merge.geometry.charts import charts
    from studio.merge.geometry.grams import jobs_of
    from studio.merge.geometry.measure import measuring
    from studio.merge.geometry.preview import preview
    from studio.merge.geometry.uncertainty import errors
    from studio.merge.preflight import check, fetch
    from studio.merge.summary import preview_text
    from studio.merge.tokens.aligned import APPROXIMATE, is_approximate

    check(recipe, options)
    show: Display = JsonLines() if parsed.json else Bar(sys.stderr)
    plan = fetch(check(measuring(recipe, parsed.base), options), show.download)
    gram, estimate = _find(plan, parsed)
    sizes = [job.numel for job in jobs_of(plan)]
    found = preview(recipe, plan.layout, sizes, gram, parsed.base)
    data: dict[str, Any] = {
        "basis": "estimated" if estimate else "exact",
        "sampled": estimate.part if estimate else None,
        "note": APPROXIMATE if is_approximate(plan, recipe) else "",
        **charts(found, errors(found, estimate.deviations) if estimate else None),
    }
    emit(data) if parsed.json else print(preview_text(data))
    return 0


def _find(plan: "Plan", parsed: argparse.Namespace) -> "tuple[Floats, Estimate | None]":
    """Gram matrices that were kept, or else sampled or measured; and how good an estimate is."""
    import numpy as np

    from studio.merge.geometry.measure import known_or_measured
    from studio.merge.geometry.sampling import estimates

    grams = kept_grams()
    if not parsed.sample:
        return known_or_measured(plan, grams, _progress(plan, parsed)), None
    known = grams.load(plan)
    if not np.isnan(known).any():
        return known, None
    *_, estimate = estimates(plan, ROUNDS)
    return estimate.gram, estimate


def _progress(plan: "Plan", parsed: argparse.Namespace) -> Callable[[int], None]:
    """What shows how far measuring is: a bar on a terminal, lines for a program that holds us."""
    from studio.merge.run import Progress

    started = time.monotonic()
    bar = Bar(sys.stderr) if sys.stderr.isatty() else None
    done, shown = 0, -SECONDS_BETWEEN

    def on_tensor(size: int) -> None:
        nonlocal done, shown
        done += size
        now = time.monotonic()
        if bar:
            bar.update(Progress(done, plan.bytes_read, 0, "", now - started))
        elif parsed.tethered and now >= shown + SECONDS_BETWEEN:
            shown = now
            emit({"event": "progress", "phase": "measure", "done": done, "total": plan.bytes_read})

    return on_tensor
