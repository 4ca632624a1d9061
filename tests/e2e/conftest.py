"""Studios to visit and a real Chromium to visit them with."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
STAND_IN = str(ROOT / "tests/ui/stand_in.py")
TOKEN = "a token for the tests"
expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong
# The studio as it is, but with merges by the stand-in.
WITH_STAND_IN = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import studio.ui.app as page, app
build = page.build
page.build = lambda settings: build(settings, (sys.executable, {STAND_IN!r}))
sys.exit(app.main())
"""


@dataclass
class Visited:
    """A running studio: its address, data folder and process."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]


@dataclass
class Visitor:
    """A page and everything that went wrong on it."""

    page: Page
    trouble: list[str] = field(default_factory=list)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(studio: Visited) -> None:
    end = time.monotonic() + 60
    while True:
        assert studio.process.poll() is None, "the studio ended while starting"
        try:
            urlopen(studio.url, timeout=5).close()
            return
        except URLError:
            assert time.monotonic() < end, "the studio did not start within a minute"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Visited]]:
    """Start studios: `start("app.py")` or `start("-c", WITH_STAND_IN)`, with more environment."""
    started: list[Visited] = []

    def start(*arguments: str, **environment: str) -> Visited:
        port = int(environment.get("STUDIO_PORT") or free_port())
        data = tmp_path_factory.mktemp("data")
        ours = {"STUDIO_PORT": str(port), "STUDIO_DATA": str(data)}
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **ours, **environment}
        )
        studio = Visited(f"http://127.0.0.1:{port}", data, process)
        started.append(studio)
        wait_until_up(studio)
        return studio

    yield start
    for studio in started:
        studio.process.terminate()
        studio.process.wait(30)


@pytest.fixture(scope="module")  # while it lives an event loop runs, which asyncio.run refuses
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a studio in a browser of its own; anything on the console fails the test."""
    visitors: list[Visitor] = []

    def visit(url: str, **context: object) -> Page:
        page = browser.new_context(**context).new_page()  # type: ignore[arg-type]
        visitor = Visitor(page)
        visitors.append(visitor)

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                visitor.trouble.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: visitor.trouble.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((url, "blob:", "data:"))
                else visitor.trouble.append(f"asked elsewhere: {request.url}")
            ),
        )
        page.goto(url)
        page.get_by_role("slider").first.wait_for(timeout=30_000)
        return page

    yield visit
    troubles = [visitor.trouble for visitor in visitors]
    for visitor in visitors:
        visitor.page.context.close()
    assert troubles == [[] for _ in visitors]
