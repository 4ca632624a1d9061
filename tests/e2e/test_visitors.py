"""A studio that others can reach: what a visitor and the owner find on the page."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import TOKEN, WITH_STAND_IN, Visited


@pytest.fixture(scope="module")
def closed(start: Callable[..., Visited]) -> Visited:
    return start("-c", WITH_STAND_IN, STUDIO_HOST="0.0.0.0")


@pytest.fixture(scope="module")
def owned(start: Callable[..., Visited]) -> Visited:
    return start("-c", WITH_STAND_IN, STUDIO_HOST="0.0.0.0", STUDIO_OWNER_TOKEN=TOKEN)


def test_without_a_token_merging_is_off_and_the_page_says_so(
    closed: Visited, visit: Callable[..., Page]
) -> None:
    page = visit(closed.url)
    expect(page.get_by_text("Merging is off")).to_be_visible()
    expect(page.get_by_role("button", name="Merge", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Check")).to_be_disabled()
    before = page.locator(".ms-legend strong").first.inner_text()
    page.get_by_role("slider").nth(2).focus()
    page.keyboard.press("End")
    expect(page.locator(".ms-legend strong").first).not_to_have_text(before)


def test_owner_enters_the_token(owned: Visited, visit: Callable[..., Page]) -> None:
    page = visit(owned.url)
    expect(page.get_by_text("enter the owner token at the top")).to_be_visible()
    page.get_by_label("Owner token").fill("not this one, surely")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_text("Not the owner token.")).to_be_visible()
    expect(page.get_by_role("button", name="Merge", exact=True)).to_be_disabled()
    page.get_by_label("Owner token").fill(TOKEN)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_text("Owner", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_text("Owner", exact=True)).to_be_visible()
    page.get_by_label("Name of the result").fill("slow")
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.get_by_text("“slow” is being merged")).to_be_visible()

    visitor = visit(owned.url)
    expect(visitor.get_by_role("progressbar")).to_be_visible()
    expect(visitor.get_by_role("button", name="Cancel")).to_have_count(0)
    assert "slow" not in visitor.locator("body").inner_text()

    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("“slow”: cancelled")).to_be_visible()
    page.get_by_role("button", name="Forget token").click()
    expect(page.get_by_role("button", name="Merge", exact=True)).to_be_disabled()
