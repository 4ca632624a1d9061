"""Large sources: an estimate with its error first, exact figures once somebody asks for them."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import ROOT, STAND_IN, Visited

FIELD = "component-1, layer 3, t, exact value"
# The studio as it is, but the demo models count as large ones, and measuring is the stand-in's.
WITH_LARGE_SOURCES = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import studio.merge.geometry.sampling as sampling
import studio.ui.app as page, studio.ui.merge.bases as bases, app
bases.MEASURED_UP_TO = 0
bases.estimates = lambda plan, rounds: sampling.estimates(plan, 1, block=128)
build = page.build
page.build = lambda settings: build(settings, (sys.executable, {STAND_IN!r}))
sys.exit(app.main())
"""


@pytest.fixture(scope="module")
def studio(start: Callable[..., Visited]) -> Visited:
    return start("-c", WITH_LARGE_SOURCES)


def estimated(page: Page) -> None:
    expect(page.get_by_text("Estimated from")).to_contain_text("of the weights: shares within ±")
    expect(page.get_by_role("button", name="Measure exactly")).to_be_enabled()
    expect(page.locator(".ms-chip", has_text="estimated")).to_be_visible()


def shares(page: Page) -> list[float]:
    return [
        float(text.rstrip(" %")) for text in page.locator(".ms-legend strong").all_inner_texts()
    ]


def test_an_estimate_is_measured_cancelled_and_replaced(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    page = visit(studio.url)
    estimated(page)
    page.get_by_role("button", name="Measure exactly").click()
    bar = page.get_by_role("progressbar", name="Progress of measuring")
    expect(bar).to_have_attribute("aria-valuenow", "50")
    page.get_by_label(FIELD).fill("0.61")  # tuning goes on meanwhile
    page.reload()
    expect(page.get_by_text("measuring exactly, 50 %")).to_be_visible()
    expect(page.get_by_label(FIELD)).to_have_value("0.61")

    other = visit(studio.url)
    expect(other.get_by_text("measuring exactly, 50 %")).to_be_visible()
    other.get_by_role("button", name="Cancel measuring").click()
    for each in (page, other):
        expect(each.get_by_role("button", name="Measure exactly")).to_be_enabled()
        estimated(each)
    guess = shares(page)

    (studio.data / "go").touch()
    other.get_by_role("button", name="Measure exactly").click()
    expect(other.get_by_text("Exact: from the angles")).to_be_visible()
    page.get_by_label(FIELD).fill("0.6")
    page.get_by_label(FIELD).fill("0.61")
    expect(page.locator(".ms-chip", has_text="exact")).to_be_visible()
    expect(page.get_by_role("button", name="Measure exactly")).to_have_count(0)
    assert shares(page) == pytest.approx(guess, abs=2)
