"""A rater at the Blind tab, by keyboard, by finger and with answers that mean harm."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from studio.arena.prompts.prompt import Prompt, load_prompts, prompt_from_data
from studio.arena.rating.pack import write_pack
from studio.arena.rating.sitting import BlindItem, Sitting
from studio.arena.trials.design import Model
from studio.arena.trials.design_yaml import design_from_data, load_design
from studio.arena.trials.ledger import Ledger
from studio.arena.trials.trial import open_trial
from tests.arena.prompts.test_cards import TEXT, chunk, png
from tests.arena.sample_trials import rate_all
from tests.e2e.conftest import ROOT, TOKEN, Visited
from tests.ui.canned import canned_trial, prompts

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TOO_WIDE = """[...document.querySelectorAll("#blind-tab .ms *")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !e.closest(".bl-pair, .bl-scroll");
}).length"""
NAMELESS = """[..."button input select textarea".split(" ")]
    .flatMap((kind) => [...document.querySelectorAll(`#blind-tab ${kind}`)])
    .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length))
    .map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def studio(start: Callable[..., Visited]) -> Visited:
    return start("app.py")


def rate(page: Page, trial: str, name: str = "") -> None:
    """Open the tab and begin to rate as someone new."""
    page.get_by_role("tab", name="Blind").click()
    page.get_by_label(f"Trial {trial}").get_by_role("button", name="Rate", exact=True).click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("region", name="Answer A")).to_be_visible()


def settle(page: Page) -> None:
    """Wait until a key can vote: a pair has to be seen for a moment."""
    page.wait_for_timeout(450)


def ratings(studio: Visited, trial: str) -> list[dict[str, str]]:
    with (studio.data / "trials" / trial / "ratings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_empty_tab_leads_to_a_demo_trial(
    start: Callable[..., Visited], visit: Callable[..., Page]
) -> None:
    page = visit(start("app.py").url)
    page.get_by_role("tab", name="Blind").click()
    expect(page.get_by_label("No trial yet").get_by_role("listitem")).to_have_count(3)
    page.get_by_role("button", name="Set up a demo trial").click()
    expect(page.get_by_label("The model that should be better")).to_have_value("demo-instruct")
    expect(page.get_by_label("Compared with", exact=True)).to_have_value("demo-roleplay")
    expect(page.locator("#blind-tab")).not_to_contain_text("/demo/models")  # names, not paths
    expect(
        page.get_by_text("12 votes on 12 prompts to explore; nothing is claimed")
    ).to_be_visible()
    expect(page.get_by_text("The rater sees 14 pairs: 12 that count")).to_be_visible()
    expect(page.get_by_text("too small to settle much")).to_be_visible()
    expect(page.get_by_text("with one answer to each prompt, so is a part")).to_be_visible()
    assert page.get_by_label("Name of the trial").input_value() == "demo"
    page.get_by_text("Which of these prompts").click()
    page.get_by_label("Of these use").select_option("")  # the sealed ones are for verdicts
    page.get_by_role("button", name="Only the open ones").click()
    expect(page.get_by_text("of the prompts are sealed")).to_have_count(0)
    expect(page.get_by_label("Of these use")).to_have_value("false")


def merge_of(folder: Path, *sources: str) -> Path:
    """What a finished merge leaves of itself, as far as a trial looks at it."""
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# A merge\n")
    report = {"sources": [{"model": source} for source in sources]}
    (folder / "merge-report.json").write_text(json.dumps(report))
    return folder


def test_new_trial_compares_the_newest_merge_with_its_own_sources(
    start: Callable[..., Visited], visit: Callable[..., Page]
) -> None:
    studio = start("app.py")
    merge_of(studio.data / "merges" / "early", "demo/models/base", "demo/models/roleplay")
    merge_of(studio.data / "merges" / "late", "demo/models/story", "someone/Writer-70b")
    page = visit(studio.url, **PHONE)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_role("button", name="New trial").click()
    expect(page.get_by_text("is late better than demo-story?")).to_be_visible()
    chosen = page.locator("[id^=bl-model-]")
    assert chosen.evaluate_all("all => all.map((e) => e.value)") == [
        "late", "demo-story", "Writer-70b",
    ]  # fmt: skip
    assert str(studio.data) not in page.locator("#blind-tab").inner_text()
    assert page.evaluate(NAMELESS) == [] and page.evaluate(TOO_WIDE) == 0
    page.get_by_label("The model that should be better").select_option("early")
    expect(page.get_by_text("is early better than demo-base?")).to_be_visible()
    page.get_by_label("Also compared with").select_option("demo-instruct")
    page.get_by_label("The model that should be better").select_option("late")
    expect(page.get_by_text("is late better than demo-base?")).to_be_visible()
    assert chosen.evaluate_all("all => all.map((e) => e.value)") == [
        "late", "demo-base", "demo-instruct",
    ], "what was chosen by hand stays"  # fmt: skip
    page.get_by_role("button", name="Add a model").tap()
    page.get_by_role("button", name="Leave this model out").first.tap()
    assert chosen.evaluate_all("all => all.map((e) => e.value)") == ["late", "demo-base", "late"]


def test_what_a_project_may_no_longer_claim_is_told_before_and_mended(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    spent = design_from_data(
        {"name": "spent", "project": "spent", "primary": ["a", "b"], "prompts": ["demo.yaml"],
         "models": [{"label": "a", "source": "a"}, {"label": "b", "source": "b"}]}
    )  # fmt: skip
    asked = load_prompts(ROOT / "prompts" / "demo.yaml")
    Ledger(studio.data / "trials").enter(spent, asked)
    Ledger(studio.data / "trials").burn(spent, asked[:5], "results read")
    page = visit(studio.url)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_role("button", name="New trial").click()
    page.get_by_text("Settings: votes").click()
    page.get_by_label("Project").fill("spent")
    expect(page.get_by_text('trials of the project "spent" share, 0 % are left')).to_be_visible()
    expect(page.get_by_text("5 of the prompts were seen before")).to_be_visible()
    page.get_by_role("button", name="Use them all the same").click()
    expect(page.get_by_text("5 of the prompts were seen before")).to_have_count(0)
    page.get_by_role("button", name="Only explore").click()
    expect(page.get_by_text("36 prompts to explore; nothing is claimed")).to_be_visible()
    expect(page.get_by_text("share, 0 % are left")).to_have_count(0)


@pytest.mark.parametrize("shape", [{"viewport": {"width": 1440, "height": 900}}, PHONE])
def test_how_raters_are_measured_is_set_in_the_form(
    studio: Visited, visit: Callable[..., Page], shape: dict[str, object]
) -> None:
    page = visit(studio.url, **shape)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_role("button", name="New trial").click()
    page.get_by_text("Settings: votes").click()
    early = page.get_by_label("A claim may be made before all planned votes are in")
    expect(early).to_be_checked()
    early.uncheck()
    page.get_by_label("Shown again, %").fill("60")
    expect(page.get_by_text("repeats is 0.6; use 0 to 0.5")).to_be_visible()
    page.get_by_label("Shown again, %").fill("10")
    expect(page.get_by_text("repeats is 0.6")).to_have_count(0)
    page.get_by_label("Prompts shared by raters, %").fill("50")
    with page.expect_request(lambda request: '"overlap":0.5' in (request.post_data or "")) as sent:
        page.get_by_label("One answer on both sides, %").fill("0")
    for part in ('"stop_early":false', '"repeats":0.1', '"identical":0'):
        assert part in (sent.value.post_data or "")
    assert page.evaluate(NAMELESS) == [] and page.evaluate(TOO_WIDE) == 0


def test_results_list_what_was_trimmed_and_write_a_true_minus(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    asked = [
        prompt_from_data(
            {"id": f"long-{n}", "category": "talk", "messages": [
                {"role": role, "content": f"{subject} {subject}s {turn}"}
                for turn, role in enumerate(("user", "assistant", "user"))
            ]}, "canned",
        )
        for n, subject in enumerate(("rain", "fog"))
    ]  # fmt: skip

    def of_rain(item: BlindItem) -> bool:
        return item.messages[0].content.startswith("rain")

    trial = canned_trial(studio.data / "trials", "trimmed", asked=asked)
    answers = trial.folder / "answers.jsonl"
    records = [json.loads(line) for line in answers.read_text().splitlines()]
    short = [
        {**r, "left_out": 2 * (r["model"] + r["prompt"] == "left-modellong-0")} for r in records
    ]
    answers.write_text("".join(json.dumps(record) + "\n" for record in short))
    rate_all(Sitting(trial.folder, "Ann"), lambda item: "tie" if of_rain(item) else "both_bad")
    rate_all(Sitting(trial.folder, "Bob"), lambda item: "both_bad" if of_rain(item) else "tie")
    page = visit(studio.url, **PHONE)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_label("Trial trimmed").get_by_role("button", name="Results").tap()
    row = page.get_by_role("row", name="long-0")
    expect(row).to_have_text("long-0left-modelthe oldest 2 of 3 messages were left out")
    expect(page.get_by_text("did not get the same messages of 1 of 2 prompts")).to_be_visible()
    expect(page.get_by_text("Krippendorff’s alpha −0.5.")).to_be_visible()
    assert page.evaluate(TOO_WIDE) == 0


def test_design_is_amended_and_the_result_put_into_a_card(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    merge = merge_of(studio.data / "merges" / "my-merge")
    models = (Model("left-model", str(merge)), Model("right-model", "/models/right"))
    trial = canned_trial(studio.data / "trials", "amended", models=models, asked=prompts(3))
    rate_all(Sitting(trial.folder, "Ann"), lambda item: "a")
    page = visit(studio.url, **PHONE)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_label("Trial amended").get_by_role("button", name="Design").tap()
    expect(page.get_by_text("Is left-model better than right-model?")).to_be_visible()
    page.get_by_text("The whole design, as TRIAL.yaml").tap()
    assert load_design(page.locator(".bl-yaml").inner_text(), "TRIAL.yaml", {}) == trial.design
    assert page.evaluate(NAMELESS) == [] and page.evaluate(TOO_WIDE) == 0
    page.get_by_label("The reason").fill("clicking without reading")
    page.get_by_role("button", name="Amend").tap()
    expect(page.get_by_text("Nothing would change: the design says so")).to_be_visible()
    page.get_by_label("faster than").fill("2.5")
    page.get_by_role("button", name="Amend").tap()
    expect(page.get_by_text("Amended; the report says so.")).to_be_visible()
    told = page.get_by_role("row", name="clicking without reading")
    expect(told).to_contain_text("leave out faster than: 0.0 → 2.5")
    expect(told).to_contain_text("3 votes")
    assert open_trial(trial.folder).design.exclusions.faster_than == 2.5

    page.get_by_role("button", name="‹ Trials").tap()
    page.get_by_label("Trial amended").get_by_role("button", name="Results").tap()
    expect(page.get_by_role("row", name="clicking without reading")).to_be_visible()
    page.get_by_role("button", name="Put it into the card of my-merge").tap()
    expect(page.get_by_role("button", name="It is in the card of my-merge")).to_be_visible()
    card = (merge / "README.md").read_text()
    assert card.startswith("# A merge\n") and "**Blind comparison.**" in card


def test_rate_by_keyboard_from_start_to_report(studio: Visited, visit: Callable[..., Page]) -> None:
    canned_trial(studio.data / "trials", "keys", asked=prompts(5))
    page = visit(studio.url)
    rate(page, "keys", "Ann")
    expect(page.get_by_text("1 of 5")).to_be_visible()
    assert page.evaluate(NAMELESS) == []

    def vote(key: str, done: str) -> None:
        settle(page)
        page.keyboard.press(key)
        expect(page.locator(".bl-count")).to_have_text(done)

    vote("1", "2 of 5")
    expect(page.get_by_text("Stored · A better")).to_be_visible()
    page.get_by_text("Checks of that pair").click()
    expect(page.get_by_role("row", name="words: at_most 6")).to_contain_text("kept (5)")
    settle(page)
    page.keyboard.press("c")
    page.keyboard.type("1 and 2: a wash")  # digits in a comment are no votes
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    vote("3", "3 of 5")
    shown = page.locator(".bl-panel").all_inner_texts()
    vote("4", "4 of 5")
    page.keyboard.press("u")
    expect(page.locator(".bl-count")).to_have_text("3 of 5")
    assert page.locator(".bl-panel").all_inner_texts() == shown

    page.reload()  # and go on
    page.get_by_role("tab", name="Blind").click()
    expect(page.locator(".bl-count")).to_have_text("3 of 5")
    assert page.locator(".bl-panel").all_inner_texts() == shown
    vote("2", "4 of 5")
    page.keyboard.press("s")
    expect(page.get_by_text("Skipped; it comes again at the end.")).to_be_visible()
    vote("1", "5 of 5")
    settle(page)
    page.keyboard.press("2")
    expect(page.get_by_text("All rated. Thank you.")).to_be_visible()

    rows = ratings(studio, "keys")
    assert [row["winner"] for row in rows] == [
        "model_a", "tie", "tie (bothbad)", "model_b", "model_a", "model_b",
    ]  # fmt: skip
    assert rows[1]["comment"] == "1 and 2: a wash" and rows[1]["recognised"] == "True"
    assert {row["judge"] for row in rows} == {"Ann"}
    assert rows[3]["supersedes"] == rows[2]["vote"]


def test_results_are_read_after_the_reveal(
    studio: Visited, visit: Callable[..., Page], tmp_path: Path
) -> None:
    canned_trial(studio.data / "trials", "read", asked=prompts(2))
    page = visit(studio.url)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_label("Trial read").get_by_role("button", name="Results").click()
    expect(page.get_by_text("Health of the answers")).to_be_visible()
    expect(page.locator(".bl-results section")).to_have_count(2)  # no tables of no votes
    page.get_by_role("button", name="‹ Trials").click()
    page.get_by_label("Trial read").get_by_role("button", name="Rate", exact=True).click()
    expect(page.get_by_text("Who is rating?")).to_be_visible()
    page.get_by_role(
        "button", name="‹ Trials"
    ).click()  # there is a way back before a name is given
    rate(page, "read")
    settle(page)
    page.keyboard.press("1")
    expect(page.locator(".bl-count")).to_have_text("2 of 2")
    page.get_by_role("button", name="‹ Trials").click()
    page.reload()
    page.get_by_role("tab", name="Blind").click()  # who has left the rating is not led back to it
    page.get_by_label("Trial read").get_by_role("button", name="Results").click()
    expect(page.get_by_text("You have still to rate: 1.")).to_be_visible()
    assert "left-model" not in page.locator("#blind-tab").inner_text()
    page.get_by_role("button", name="Rate on").click()
    settle(page)
    page.keyboard.press("3")
    page.get_by_role("button", name="Show which was which").click()
    expect(page.get_by_role("row", name="left-model")).to_be_visible()
    page.get_by_role("button", name="‹ Trials").click()
    page.get_by_label("Trial read").get_by_role("button", name="Results").click()
    expect(page.get_by_text("Explored, nothing is claimed")).to_be_visible()
    expect(page.locator(".bl-results .main-svg").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Report (HTML)").click()
    download.value.save_as(tmp_path / "report.html")
    assert "Blind comparison: read" in (tmp_path / "report.html").read_text()
    assert page.context.browser is not None
    alone = page.context.browser.new_context(offline=True, **PHONE)  # type: ignore[arg-type]
    report, asked, wrong = alone.new_page(), [], []
    report.on("request", lambda request: asked.append(request.url))
    report.on("pageerror", lambda error: wrong.append(str(error)))
    report.goto((tmp_path / "report.html").as_uri())
    expect(report.locator("[id^=chart-] .main-svg").first).to_be_visible()
    expect(report.get_by_text("left-model against right-model (primary)")).to_be_visible()
    assert report.evaluate("document.documentElement.scrollWidth") == 390
    assert (len(asked), wrong) == (1, []), "the file asks for nothing but itself"
    alone.close()


def test_rate_by_finger(studio: Visited, visit: Callable[..., Page]) -> None:
    canned_trial(studio.data / "trials", "finger", asked=prompts(3))
    page = visit(studio.url, **PHONE, color_scheme="dark")
    rate(page, "finger")
    assert page.evaluate(TOO_WIDE) == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for verdict in ("A better", "B better", "Tie", "Both bad"):
        expect(page.get_by_role("button", name=verdict)).to_be_in_viewport(ratio=1)
    size = page.get_by_role("button", name="A better").bounding_box()
    assert size is not None and size["height"] >= 44
    expect(page.get_by_role("region", name="Answer A")).to_be_in_viewport()
    expect(page.get_by_role("region", name="Answer B")).not_to_be_in_viewport(ratio=0.5)
    page.get_by_role("button", name="Answer B").tap()
    expect(page.get_by_role("region", name="Answer B")).to_be_in_viewport(ratio=0.5)
    for count in ("2 of 3", "3 of 3", "3 of 3 rated"):
        settle(page)
        page.get_by_role("button", name="B better").tap()
        expect(page.locator(".bl-count")).to_have_text(count)
    assert [row["winner"] for row in ratings(studio, "finger")] == ["model_b"] * 3


HOSTILE = """<script>window.hurt = 1</script><img src=x onerror="window.hurt = 2">
![pixel](http://evil.example/pixel.png) [link](javascript:window.hurt=3) <http://evil.example>
</div></section><style>body { display: none }</style><a href="http://evil.example">here</a>

# Head <b>not bold</b>
- **bold** and *slanted* and `code <i>`
- \u202egnirts desrever

> a quote &lt;kept&gt;
```html
<iframe src="http://evil.example"></iframe>
"""


@pytest.mark.parametrize("is_plain", [False, True])
def test_hostile_answer_stays_text(
    studio: Visited, visit: Callable[..., Page], is_plain: bool
) -> None:
    name = f"hostile-{int(is_plain)}"
    evil = [prompt_from_data({"id": "p", "category": "c", "prompt": HOSTILE}, "hostile")]

    def write(model: str, prompt: Prompt, draw: int) -> str:
        return HOSTILE + "x" * 5000

    canned_trial(studio.data / "trials", name, asked=evil, write=write)
    page = visit(studio.url)  # which fails for anything asked elsewhere, and for any error
    rate(page, name)
    if is_plain:
        page.keyboard.press("p")
    for box in page.locator(".bl-text, .bl-request").all():
        text = box.inner_text()
        for part in ("<script>window.hurt = 1</script>", "onerror=", "[link](javascript:", "<b>"):
            assert part in text
        assert box.locator("script, img, a, iframe, style, link, object, embed, b").count() == 0
        assert box.locator("strong").count() == (0 if is_plain else 1)
    assert page.evaluate("window.hurt") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator(".bl-vote").first).to_be_visible()


def test_keys_vote_only_where_a_pair_was_seen(studio: Visited, visit: Callable[..., Page]) -> None:
    canned_trial(studio.data / "trials", "stray", asked=prompts(4))
    page = visit(studio.url)
    rate(page, "stray")
    settle(page)
    page.keyboard.type("1111")  # a key that bounces gives one vote
    expect(page.locator(".bl-count")).to_have_text("2 of 4")
    settle(page)
    page.keyboard.press("Control+1")
    page.get_by_role("tab", name="Merge").click()
    page.keyboard.press("2")
    page.get_by_role("tab", name="Blind").click()
    expect(page.locator(".bl-count")).to_have_text("2 of 4")
    settle(page)
    assert len(ratings(studio, "stray")) == 1


@pytest.mark.parametrize("arrives", [False, True])
def test_vote_whose_answer_is_lost_is_stored_once(
    studio: Visited, browser: Browser, arrives: bool
) -> None:
    trial = f"lost-{int(arrives)}"
    canned_trial(studio.data / "trials", trial, asked=prompts(3))
    page = browser.new_context().new_page()
    page.goto(studio.url)
    rate(page, trial)
    settle(page)
    lost: list[str] = []

    def lose(route: Route) -> None:
        if '"vote"' not in (route.request.post_data or "") or lost:
            route.continue_()
            return
        lost.append(route.request.url)
        if arrives:
            route.fetch()
        route.abort()

    page.route("**/component_server/", lose)
    page.keyboard.press("2")
    expect(page.get_by_text("your vote is not stored yet")).to_be_visible()
    expect(page.locator(".bl-count")).to_have_text("2 of 3")
    expect(page.get_by_text("your vote is not stored yet")).to_have_count(0)
    assert [row["winner"] for row in ratings(studio, trial)] == ["model_b"]
    page.context.close()


def test_visitor_rates_what_the_owner_has_opened_and_sees_no_more(
    start: Callable[..., Visited], visit: Callable[..., Page]
) -> None:
    studio = start("app.py", STUDIO_HOST="0.0.0.0", STUDIO_OWNER_TOKEN=TOKEN)
    for name in ("shut", "wide"):
        canned_trial(studio.data / "trials", name, asked=prompts(2))
    owner = visit(studio.url)
    owner.get_by_label("Owner token").fill(TOKEN)
    owner.get_by_role("button", name="Enter").click()
    owner.get_by_role("tab", name="Blind").click()
    owner.get_by_label("Trial wide").get_by_role("button", name="Open for raters").click()
    expect(owner.get_by_label("Trial wide").get_by_text("open for raters")).to_be_visible()

    visitor = visit(studio.url)
    visitor.get_by_role("tab", name="Blind").click()
    expect(visitor.get_by_label("Trial wide")).to_be_visible()
    expect(visitor.get_by_label("Trial shut")).to_have_count(0)
    for name in ("Results", "New trial", "Close for raters"):
        expect(visitor.get_by_role("button", name=name)).to_have_count(0)
    rate(visitor, "wide")
    settle(visitor)
    visitor.keyboard.press("1")
    expect(visitor.locator(".bl-count")).to_have_text("2 of 2")
    visitor.locator(".bl-who summary").click()
    code = visitor.locator(".bl-code code").inner_text()

    elsewhere = visit(studio.url, **PHONE)
    elsewhere.get_by_role("tab", name="Blind").click()
    elsewhere.get_by_label("Trial wide").get_by_role("button", name="Rate").click()
    elsewhere.get_by_label("Begun elsewhere? Your code").fill(code)
    elsewhere.get_by_role("button", name="Go on").click()
    expect(elsewhere.locator(".bl-count")).to_have_text("2 of 2")


@pytest.mark.timeout(240)
def test_whole_way_on_the_demo_models(studio: Visited, visit: Callable[..., Page]) -> None:
    page = visit(studio.url)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_role("button", name="New trial").click()
    expect(page.get_by_text("find a true 65 % preference in")).to_be_visible()
    assert page.evaluate(NAMELESS) == []
    page.get_by_label("The model that should be better").select_option("Another …")
    page.get_by_label("Folder, Hub id or endpoint").first.fill("demo/models/instruct")
    page.get_by_label("Compared with", exact=True).select_option("demo-story")
    page.get_by_text("Which of these prompts").click()
    page.get_by_label("Of these use").select_option("true")
    expect(
        page.get_by_text("72 answers to make. The rater sees 14 pairs: 12 that count")
    ).to_be_visible()
    page.get_by_text("Settings: votes").click()
    page.get_by_label("Error rate, %").fill("0")
    page.get_by_label("Answers per prompt").fill("1")
    expect(page.get_by_text("12 votes on 12 prompts to explore")).to_be_visible()
    expect(page.get_by_text("24 answers to make")).to_be_visible()
    page.get_by_label("Engine").select_option("embedded")
    page.get_by_label("Name of the trial").fill("Demo!")
    page.get_by_role("button", name="Create the trial").click()
    expect(page.get_by_text("use lower-case letters, digits and dashes")).to_be_visible()
    page.get_by_label("Name of the trial").fill("demo")
    page.get_by_role("button", name="Create the trial").click()
    card = page.get_by_label("Trial demo")
    expect(card.get_by_role("progressbar")).to_be_visible()
    expect(card.get_by_text("ready to rate")).to_be_visible(timeout=100_000)

    rate(page, "demo")
    while not page.get_by_text("All rated.").is_visible():
        a, b = (panel.inner_text() for panel in page.locator(".bl-text").all())
        settle(page)
        page.keyboard.press("1" if len(a) < len(b) else "2" if len(b) < len(a) else "3")
        page.wait_for_timeout(150)
    page.get_by_role("button", name="‹ Trials").click()
    page.get_by_label("Trial demo").get_by_role("button", name="Results").click()
    expect(page.get_by_text("Explored, nothing is claimed: instruct was preferred")).to_be_visible()
    kept = page.get_by_role("row", name="demo-story").last.inner_text()
    assert "of 15" in kept


def test_pack_and_character_card_are_taken_in(
    studio: Visited, visit: Callable[..., Page], tmp_path: Path
) -> None:
    made = canned_trial(tmp_path / "elsewhere", "afar", asked=prompts(2))
    write_pack(made, tmp_path / "afar.pack.zip")
    page = visit(studio.url)
    page.get_by_role("tab", name="Blind").click()
    page.get_by_label("Trial pack to add").set_input_files(tmp_path / "afar.pack.zip")
    rate(page, "afar")
    for count in ("2 of 2", "2 of 2 rated"):
        settle(page)
        page.keyboard.press("1")
        expect(page.locator(".bl-count")).to_have_text(count)
    expect(page.get_by_text("known only to whoever made the trial")).to_be_visible()
    expect(page.get_by_role("button", name="Show which was which")).to_have_count(0)

    page.get_by_role("button", name="‹ Trials").click()
    page.get_by_role("button", name="New trial").click()
    expect(page.get_by_text("demo.yaml")).to_be_visible()
    mine = tmp_path / "my prompts (1).csv"
    for content, told in (
        (b"id,category,prompt\nx,c\n", "my-prompts-1-.csv, line 2: 2 cells where the first line"),
        ("id,category,prompt\nx,c,Grüß Gott\n".encode("latin-1"), "is not UTF-8 text"),
        (b"id;category;prompt\nx;c;Hello there\n", ""),
        (b"id;category;prompt\nx;c;Hello again\n", "my-prompts-1-.csv is replaced"),
    ):
        mine.write_bytes(content)
        page.get_by_label("Prompt file to upload").set_input_files(mine)
        if told:
            expect(page.get_by_text(told)).to_be_in_viewport()
        else:
            expect(page.get_by_text("my-prompts-1-.csv")).to_be_visible()
    expect(page.locator("[data-file='my-prompts-1-.csv']")).to_have_count(1)

    picture = tmp_path / "mira.png"
    pixels = chunk(b"IDAT", b"\0" * 2_000_000)  # which need not travel
    picture.write_bytes(png(pixels, TEXT))
    page.get_by_label("Character card to upload").set_input_files(picture)
    page.get_by_label("What is said to the character of mira.png").fill("Who are you?\nWhy?")
    page.get_by_role("button", name="Make prompts of it").click()
    expect(page.get_by_text("mira.jsonl")).to_be_visible()
    expect(page.get_by_text("not used: its other greetings")).to_be_visible()
