"""From an anchor's move to the redrawn charts, in a real Chromium.

The clock is the page's own, performance.now(): it starts where the page first hears of the move
(its pointermove, before anything is computed) and stops after the frame is painted that shows the
answer: once the chart has been redrawn with it, the next animation frame is awaited, and a message
posted in that frame, which arrives after its paint. Each move begins when the one before has been
drawn; a drag of many moves without a pause tells whether stale charts queue up.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

from bench.contestants import ROOT, house_recipe
from bench.errors import BenchError
from bench.models import make_models
from bench.report import Bar
from bench.shapes import Shape

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 60.0
VIEWS = ("Shares", "Settings", "Similarity", "Heatmap")
MEDIAN_BAR, P95_BAR = 60.0, 120.0  # ms
# As many tensors as Llama-2 70B: 80 layers of 9, and 3 outside of them; narrow, since the charts
# show one number for each whatever its size.
SHAPE = Shape(hidden=64, inter=128, layers=80, heads=4, kv_heads=2, vocab=128)
# Of the chart that is shown: how long each move took, how often it was drawn, when last.
WATCH = """() => {
  const box = [...document.querySelectorAll(".ms-plot")].find((each) => each.offsetParent);
  const seen = window.seen = { times: [], drawn: 0, begun: null, last: 0, moved: 0 };
  window.addEventListener("pointermove", () => {
    seen.moved = performance.now();
    seen.begun ??= seen.moved;
  }, { capture: true });
  box.on("plotly_afterplot", () => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      seen.drawn += 1;
      seen.last = performance.now();
      if (seen.begun !== null) seen.times.push(seen.last - seen.begun);
      seen.begun = null;
    };
    channel.port2.postMessage(0);
  }));
}"""
IS_DRAWN = "(count) => window.seen.times.length >= count"
IS_AT_REST = "() => performance.now() - Math.max(window.seen.last, window.seen.moved) > 400"


@dataclass(frozen=True)
class Drags:
    """What one view of the charts took, in ms.

    `times`: each of single moves. A drag of `moves` without a pause drew the chart `drawn` times,
    the last time `lag` ms after the last move.
    """

    view: str
    times: list[float] = field(default_factory=list)
    moves: int = 0
    drawn: int = 0
    lag: float = 0.0

    @property
    def p95(self) -> float:
        """What 19 of 20 moves stayed below."""
        return quantiles(self.times, n=20)[-1]


def browse(folder: Path, rounds: int) -> list[Drags]:
    """Measure every view with `rounds` single moves; models and data go to `folder`."""
    try:
        from playwright.sync_api import sync_playwright

        from tools import chromium
    except ImportError as error:
        raise BenchError(f"{error}; run make bench, which installs what the bench needs") from error
    path = chromium.find()
    if path is None:
        raise BenchError(chromium.HOW_TO)
    models = [folder / name for name in ("one", "two", "three")]
    make_models(SHAPE, models)
    recipe = folder / "bench.yaml"
    recipe.write_text(house_recipe(models))
    with _studio(folder / "data") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.get_by_role("slider").first.wait_for(timeout=1000 * PATIENCE)
        page.set_input_files("input[type=file]", recipe)
        page.get_by_text("Exact: from the angles").wait_for(timeout=1000 * PATIENCE)
        page.wait_for_timeout(3000)  # the check of the sources runs once, in the background
        return [_measure(page, view, rounds) for view in VIEWS]


def _measure(page: "Page", view: str, rounds: int) -> Drags:
    page.get_by_role("button", name=view, exact=True).click()
    page.wait_for_timeout(1500)
    page.evaluate(WATCH)
    knob = page.get_by_role("slider").first.locator(".ms-knob")
    knob.scroll_into_view_if_needed()
    place = knob.bounding_box()
    assert place is not None
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate("window.seen.begun = null")
    warm_up = 5
    for count in range(1, rounds + warm_up + 1):
        page.mouse.move(x, y - 3 * (count % 16) - 3)
        page.wait_for_function(IS_DRAWN, arg=count, timeout=1000 * PATIENCE)
        page.wait_for_timeout(60)
    times = page.evaluate("window.seen.times")[warm_up:]
    page.evaluate("window.seen.drawn = 0")
    page.mouse.move(x, y - 60, steps=rounds)
    page.wait_for_function(IS_AT_REST, timeout=1000 * PATIENCE)
    drawn, lag = page.evaluate("[window.seen.drawn, window.seen.last - window.seen.moved]")
    page.mouse.up()
    page.get_by_role("button", name="Reset", exact=True).click()
    return Drags(view, times, rounds, drawn, lag)


@contextmanager
def _studio(data: Path) -> Iterator[str]:
    """A studio of its own, at the address it yields."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environ = {key: value for key, value in os.environ.items() if not key.startswith("STUDIO_")}
    environ |= {"STUDIO_PORT": str(port), "STUDIO_DATA": str(data)}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL
    )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            if process.poll() is not None or time.monotonic() > end:
                raise BenchError("the studio did not start; see what python app.py says")
            try:
                urlopen(url, timeout=5).close()
                break
            except URLError:
                time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def browser_text(found: list[Drags]) -> str:
    """The table of the views and their bars."""
    lines = [
        f"\nbrowser: {SHAPE.layers} layers × 9 tensors × 3 sources, from an anchor's move to the "
        "painted chart, ms",
        f"{'view':12}{'moves':>7}{'median':>9}{'p95':>8}{'max':>8}"
        f"{'drag: moves':>14}{'drawn':>7}{'lag':>7}",
    ]
    for drags in found:
        lines.append(
            f"{drags.view:12}{len(drags.times):>7}{median(drags.times):>9.1f}{drags.p95:>8.1f}"
            f"{max(drags.times):>8.1f}{drags.moves:>14}{drags.drawn:>7}{drags.lag:>7.0f}"
        )
    return "\n".join([*lines, *map(str, browser_bars(found))])


def browser_bars(found: list[Drags]) -> list[Bar]:
    """Every view must meet them; the worst is shown."""
    middle = max(found, key=lambda drags: median(drags.times))
    high = max(found, key=lambda drags: drags.p95)
    behind = max(found, key=lambda drags: drags.drawn - drags.moves)
    return [
        Bar(
            f"median < {MEDIAN_BAR:g} ms in every view",
            f"{median(middle.times):.1f} ms ({middle.view})",
            median(middle.times) < MEDIAN_BAR,
        ),
        Bar(
            f"p95 < {P95_BAR:g} ms in every view",
            f"{high.p95:.1f} ms ({high.view})",
            high.p95 < P95_BAR,
        ),
        Bar(
            "a drag draws no more charts than it made moves",
            f"{behind.drawn} for {behind.moves} ({behind.view})",
            behind.drawn <= behind.moves,
        ),
    ]
