"""A person at the Merge tab: tune, check, merge, and use what came of it."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.checkpoints import write_checkpoint, write_tokenizer
from tests.e2e.conftest import ROOT, WITH_STAND_IN, Visited
from tests.faults.hub_double import serve
from tests.faults.merging import write_recipe

LAST = "component-1, layer 3, t"
TOO_WIDE = """[...document.querySelectorAll(".ms *")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).length"""
READ_SHARES = """(box, row) => {
    const axis = box.layout.xaxis, at = axis.tickvals[axis.ticktext.indexOf(row)];
    const kind = (type) => box.data.filter((trace) => trace.type === type && trace.customdata);
    if (/^[0-9]+$/.test(row)) return kind("scatter").map((each) => each.y[each.x.indexOf(at)]);
    const [bars] = kind("bar");
    return bars.y.filter((_, k) => bars.x[k] === at);
}"""
NAMELESS = """roots => roots
    .flatMap((root) => [...root.querySelectorAll("button, input, select, [role=slider]")])
    .filter((e) => !(e.ariaLabel || e.innerText?.trim() || e.labels?.length))
    .map((e) => e.outerHTML)"""


@pytest.fixture(scope="module")
def studio(start: Callable[..., Visited]) -> Iterator[Visited]:
    return start("app.py")


@pytest.fixture(scope="module")
def stand_in(start: Callable[..., Visited]) -> Visited:
    return start("-c", WITH_STAND_IN)


def shares(page: Page) -> list[str]:
    return page.locator(".ms-legend strong").all_inner_texts()


def drawn(page: Page, row: str) -> list[float]:
    """The sources' shares at a row of the chart, as it is drawn: 3 is a layer, head is outside."""
    chart = page.get_by_role("img", name="Share of each source by layer")
    expect(chart.locator(".trace").first).to_be_attached()
    found: list[float] = chart.evaluate(READ_SHARES, row)
    return found


def settled(page: Page) -> Page:
    expect(page.get_by_text("Exact: from the angles")).to_be_visible()
    return page


def name(page: Page, text: str) -> None:
    page.get_by_label("Name of the result").fill(text)


def test_tune_merge_and_generate(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    expect(page.get_by_text("Ready to merge.")).to_be_visible()
    before, before_drawn = shares(page), drawn(page, "3")
    knob = page.get_by_role("slider", name=LAST).locator(".ms-knob").bounding_box()
    assert knob is not None
    x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 60, steps=6)
    page.mouse.up()
    field = page.get_by_label(f"{LAST}, exact value")
    expect(field).not_to_have_value("0.5")
    moved = float(field.input_value())
    assert 0.8 < moved <= 1
    expect(page.locator(".ms-legend strong").first).not_to_have_text(before[0])
    assert drawn(page, "3") != before_drawn

    name(page, "tuned")
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.get_by_text("“tuned” is merged")).to_be_visible(timeout=60_000)
    result = studio.data / "merges" / "tuned"
    expect(page.locator(".ms-path code")).to_have_text(str(result))
    recorded = json.loads((result / "merge-report.json").read_text())
    told = page.locator(".ms-report").inner_text()
    assert f"{recorded['summary']['parameters']:,}" in told
    shown = [float(text.rstrip(" %")) for text in shares(page)]
    made = [100 * share for share in recorded["summary"]["shares"].values()]
    assert shown == pytest.approx(made, abs=0.06)
    assert [0.25, 0.3, moved] == anchors_of((result / "recipe.yaml").read_text())
    assert_generates(result)
    go_on(page, str(result))


def go_on(page: Page, result: str) -> None:
    """What a merge is made for is one press away."""
    done = page.locator(".ms-work")
    done.get_by_role("button", name="Serve it: tuned").click()
    serve = page.get_by_role("group", name="Models to serve")
    expect(serve.locator(":checked")).to_have_count(1)
    expect(serve.locator(":checked")).to_have_attribute("data-model", result)
    page.get_by_role("tab", name="Merge").click()
    done.get_by_role("button", name="Compare it blind: tuned").click()
    first = page.get_by_label("The model that should be better")
    expect(first).to_have_value("tuned")
    page.get_by_role("tab", name="Merge").click()


def anchors_of(recipe: str) -> list[float]:
    found = re.search(r"t: \[(.*)\]", recipe)
    assert found is not None
    return [float(text) for text in found[1].split(",")]


def assert_generates(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer("USER: Say hello. ASSISTANT:", return_tensors="pt")
    prompt.pop("token_type_ids", None)
    answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert answer.shape[1] > prompt["input_ids"].shape[1]


def test_keyboard_moves_an_anchor(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    slider = page.get_by_role("slider", name=LAST)
    slider.focus()
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowDown")
    expect(slider).to_have_attribute("aria-valuenow", "0.59")
    expect(slider).to_have_attribute("aria-valuetext", "0.59, 59 % towards instruct")
    page.keyboard.press("End")
    expect(slider).to_have_attribute("aria-valuenow", "1")
    expect(page.get_by_label(f"{LAST}, exact value")).to_have_value("1")
    page.keyboard.press("Control+z")
    expect(slider).not_to_have_attribute("aria-valuenow", "1")


def test_direction_is_on_screen(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    first = page.get_by_role("region", name="Stage 1: component-1")
    expect(first.locator("dl")).to_have_text(
        re.compile(r"t = 0\s*demo/models/roleplay.*t = 1\s*demo/models/instruct")
    )
    expect(first.get_by_text("t = 1: only instruct")).to_be_visible()
    expect(first.get_by_text("t = 0: only roleplay")).to_be_visible()


def test_anchors_are_added_and_removed(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    before = shares(page)
    page.get_by_role("button", name="Add an anchor to component-1").click()
    values = [
        page.get_by_label(f"component-1, layer {layer}, t, exact value").input_value()
        for layer in range(4)
    ]
    assert values == ["0.25", "0.283", "0.367", "0.5"]
    page.wait_for_timeout(500)
    assert shares(page) == before  # the curve is the same
    page.get_by_role("button", name="Remove the anchor at layer 3 of component-1").click()
    expect(page.locator(".ms-legend strong").first).not_to_have_text(before[0])
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label(f"{LAST}, exact value")).to_have_value("0.5")


def test_head_has_its_own_t(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    shares_before = shares(page)
    field = page.get_by_label("component-1, lm_head, t", exact=True)
    expect(field).to_have_attribute("placeholder", "0.25")
    before = drawn(page, "head")
    assert before == pytest.approx(drawn(page, "0"), abs=0.02)
    field.fill("0.9")
    expect(page.locator(".ms-legend strong").first).not_to_have_text(shares_before[0])
    assert drawn(page, "head")[0] < before[0] - 0.1  # less of the first, more of the second source
    with page.expect_download() as download:
        page.get_by_role("button", name="Download YAML").click()
    text = Path(download.value.path()).read_text()
    assert download.value.suggested_filename == "demo.yaml"
    assert "filter: lm_head" in text and "0.9" in text
    page.get_by_role("button", name="component-1, lm_head: follow the first anchor again").click()
    expect(page.locator(".ms-legend strong").first).to_have_text(shares_before[0])
    assert drawn(page, "head") == before


def test_wrong_number_changes_nothing(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    field = page.get_by_label(f"{LAST}, exact value")
    field.fill("")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.blur()
    expect(field).to_have_value("0.5")


def test_upload_of_a_recipe(studio: Visited, visit: Callable[..., Page], tmp_path: Path) -> None:
    page = settled(visit(studio.url))
    file = tmp_path / "mine.yaml"
    file.write_text((ROOT / "recipes/demo.yaml").read_text().replace("0.25, 0.3, 0.5", "1, 0"))
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_label("component-1, layer 0, t, exact value")).to_have_value("1")
    expect(page.get_by_label("Recipe", exact=True)).to_have_text(re.compile("mine.yaml"))
    file.write_text("merge_method: tise")
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_role("alert")).to_contain_text("Not opened: mine.yaml, line 1")
    expect(page.get_by_role("alert")).to_contain_text('"tise" is not supported')
    page.get_by_role("button", name="Close this message").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def slerp_of(first: str, second: str, layers: int) -> str:
    parts = "".join(f"  - {{model: {m}, layer_range: [0, {layers}]}}\n" for m in (first, second))
    head = f"merge_method: slerp\nbase_model: {first}\nparameters: {{t: [0, 1]}}\n"
    return f"{head}slices:\n- sources:\n{parts}"


def test_upload_after_the_demo_is_as_deep_as_it_says(
    studio: Visited, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = settled(visit(studio.url))
    file = tmp_path / "far.yaml"
    file.write_text(slerp_of("maker/one", "maker/two", 28))
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_label("Result, layer 27, t, exact value")).to_have_value("1")
    expect(page.get_by_text("the sources are not on this machine.")).to_be_visible()
    expect(page.get_by_label("Number of layers to assume")).to_have_count(0)
    assert len(shares(page)) == 2


def test_upload_after_the_demo_is_not_taken_for_as_shallow(
    studio: Visited, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = settled(visit(studio.url))
    names = ["maker/one", "maker/two", "maker/three"]
    page.set_input_files("input[type=file]", write_recipe(tmp_path / "far.yaml", names))
    expect(page.get_by_label("Number of layers to assume")).to_have_value("32")


def test_charts_of_another_recipe_do_not_stand_beside_an_error(
    studio: Visited, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = settled(visit(studio.url))
    file = tmp_path / "deep.yaml"
    file.write_text(slerp_of("demo/models/story", "demo/models/instruct", 9))
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_text("its slices end at layer 9, the models have 4")).to_be_visible()
    expect(page.locator(".ms-legend")).to_be_hidden()
    page.get_by_role("button", name="Undo").click()
    settled(page)
    expect(page.locator(".ms-legend strong")).to_have_count(3)


def test_report_of_an_earlier_merge_is_there_to_read(
    start: Callable[..., Visited], visit: Callable[..., Page]
) -> None:
    studio = start("app.py")
    folder = studio.data / "merges" / "older"
    folder.mkdir(parents=True)
    shown = {"parameters": 1234, "layers": 7, "shares": {"a/one": 0.25}}
    report = {"bytes_written": 5_700_000, "dtype": "bfloat16", "summary": shown}
    (folder / "merge-report.json").write_text(json.dumps(report))
    page = settled(visit(studio.url))
    page.get_by_text("Made so far: 1").click()
    page.get_by_label("Report of older").click()
    expect(page.get_by_role("row", name="Parameters")).to_contain_text("1,234 in 7 layers")
    expect(page.get_by_role("row", name="one")).to_contain_text("25.0 % of the weights")


def test_reload_comes_back_to_the_tab(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    page.get_by_role("tab", name="Blind").click()
    expect(page.get_by_role("button", name="New trial")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="New trial")).to_be_visible()
    page.get_by_role("tab", name="Merge").click()
    settled(page)
    assert drawn(page, "3")


def test_markup_in_a_recipe_stays_text(
    studio: Visited, visit: Callable[..., Page], tmp_path: Path
) -> None:
    page = settled(visit(studio.url))
    file = tmp_path / "x.yaml"
    evil = "<img src=x onerror=document.title=1>"
    text = (ROOT / "recipes/demo.yaml").read_text()
    file.write_text(text.replace("component-1", f'"{evil}${{alert(1)}}"'))
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_role("heading", name=f"{evil}${{alert(1)}}")).to_be_visible()
    assert page.title() == "Merge Studio" and page.locator("img[src=x]").count() == 0


TOKENS = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(3, 64))]
MORE = (TOKENS, ("<turn>", "<img src=x>")), ["66", "66", "0", "0", "<turn> (64), <img src=x> (65)"]
TURNED = ([*TOKENS[:3], *TOKENS[:2:-1]], ()), ["64", "64", "0", "60", "–"]


@pytest.mark.parametrize(("tokens", "cells"), [MORE, TURNED], ids=["more tokens", "other ids"])
def test_vocabularies_that_differ_are_shown_with_the_remedy(
    studio: Visited,
    visit: Callable[..., Page],
    tmp_path: Path,
    tokens: tuple[list[str], tuple[str, ...]],
    cells: list[str],
) -> None:
    words, added = tokens
    models = [str(tmp_path / name) for name in ("plain", "chat")]
    write_tokenizer(write_checkpoint(Path(models[0]), vocab_size=64), TOKENS)
    write_tokenizer(write_checkpoint(Path(models[1]), vocab_size=64 + len(added)), words, added)
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"merge_method: slerp\nbase_model: {models[0]}\nparameters: {{t: 0.4}}\n"
        f"models: [{{model: {models[0]}}}, {{model: {models[1]}}}]\n"
    )
    page = settled(visit(studio.url))
    page.set_input_files("input[type=file]", file)
    table = page.get_by_role("group", name="The vocabularies")
    row = table.get_by_role("row", name=models[1])
    expect(row.get_by_role("cell")).to_have_text(cells, timeout=60_000)
    page.get_by_role("button", name="Merge by token: everyone’s tokens").click()
    expect(page.get_by_text("Ready to merge.")).to_be_visible(timeout=60_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download YAML").click()
    assert "tokenizer_source: union" in Path(download.value.path()).read_text()
    page.get_by_role("button", name="Edit Result").click()
    expect(page.get_by_label("Tokenizer of Result")).to_have_value("union")


def test_models_that_are_not_here(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    page.get_by_label("Recipe", exact=True).select_option("creative-70b")
    expect(page.get_by_text("the sources are not on this machine")).to_be_visible()
    expect(page.get_by_label("component-1, layer 79, t, exact value")).to_have_value("0.5")
    page.get_by_label("Number of layers to assume").fill("40")
    page.get_by_label("Number of layers to assume").press("Enter")
    expect(page.get_by_label("component-1, layer 39, t, exact value")).to_have_value("0.5")


def test_download_is_announced_shown_and_cancelled(
    start: Callable[..., Visited], visit: Callable[..., Page], tmp_path: Path
) -> None:
    names = ["maker/one", "maker/two", "maker/three"]
    sizes = {"layers": 2, "vocab_size": 60_000, "hidden_size": 128, "format": "bin"}
    folders = [write_checkpoint(tmp_path / name, seed=n, **sizes) for n, name in enumerate(names)]
    with serve(dict(zip(names, folders, strict=True))) as hub:
        hub.slow.add("pytorch_model.bin")
        studio = start("app.py", **hub.environment(tmp_path / "home"))
        page = settled(visit(studio.url))
        page.set_input_files("input[type=file]", write_recipe(tmp_path / "far.yaml", names))
        expect(page.get_by_text("Not on this machine: one, two, three. Merge")).to_be_visible()
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.get_by_text(re.compile(r"^Downloads [0-9.]+ MB first\.$"))).to_be_visible(
            timeout=60_000
        )
        assert not any(file.endswith(".bin") for file in hub.downloads())
        page.get_by_role("button", name="Merge", exact=True).click()
        told = page.get_by_text(re.compile(r"downloading the sources · \d+ % · .* of [0-9.]+ MB"))
        expect(told).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("heading", name="“far-merge”: cancelled")).to_be_visible(
            timeout=60_000
        )
    assert not list((tmp_path / "home").rglob("*.incomplete"))


def test_draft_survives_a_reload(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    page.get_by_label(f"{LAST}, exact value").fill("0.77")
    page.reload()
    expect(page.get_by_label(f"{LAST}, exact value")).to_have_value("0.77")
    page.get_by_role("button", name="Reset", exact=True).click()
    expect(page.get_by_label(f"{LAST}, exact value")).to_have_value("0.5")


def test_draft_of_another_version_does_not_shut_the_page(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    stored = {"name": "merge-studio-draft", "value": '{"recipe": {"stages": [{"old": 1}]}}'}
    state = {"cookies": [], "origins": [{"origin": studio.url, "localStorage": [stored]}]}
    page = settled(visit(studio.url, storage_state=state))
    expect(page.get_by_label(f"{LAST}, exact value")).to_have_value("0.5")


def test_restart_of_the_studio_keeps_the_tuning(
    start: Callable[..., Visited], browser: Browser
) -> None:
    first = start("-c", WITH_STAND_IN)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(first.url)
        settled(page)
        page.evaluate("window.mark = 'the same page'")
        page.get_by_label(f"{LAST}, exact value").fill("0.66")
        first.process.terminate()
        assert first.process.wait(20) == 0
        expect(page.get_by_text("The studio does not answer.")).to_be_visible()
        start("-c", WITH_STAND_IN, STUDIO_PORT=first.url.rpartition(":")[2])
        expect(page.get_by_text("The studio does not answer.")).to_be_hidden()
        assert page.evaluate("window.mark") == "the same page"
        expect(page.get_by_label(f"{LAST}, exact value")).to_have_value("0.66")


def test_progress_is_shared_survives_reload_and_cancels(
    stand_in: Visited, visit: Callable[..., Page]
) -> None:
    page = settled(visit(stand_in.url))
    name(page, "slow")
    page.get_by_role("button", name="Merge", exact=True).click()
    bar = page.get_by_role("progressbar", name="Progress of the merge")
    expect(bar).to_be_visible()
    numbers = page.locator(".ms-numbers")
    expect(numbers).to_have_text(re.compile(r"% · .* of 1\.0 MB · .*B/s · .* left · .* so far"))
    page.reload()
    expect(page.get_by_text("“slow” is being merged")).to_be_visible()
    other = visit(stand_in.url)
    expect(other.get_by_text("“slow” is being merged")).to_be_visible()
    expect(other.get_by_role("button", name="Merge", exact=True)).to_be_disabled()
    other.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("“slow”: cancelled")).to_be_visible()
    expect(other.get_by_text("“slow”: cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Merge", exact=True)).to_be_enabled()


def test_failure_is_told(stand_in: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(stand_in.url))
    name(page, "crash")
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.get_by_text("“crash”: failed")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("ended with code 1")
    page.get_by_text("What it said").click()
    expect(page.get_by_text("the disk is on fire")).to_be_visible()
    name(page, "../up")
    expect(page.get_by_text("Use letters, digits")).to_be_visible()
    expect(page.get_by_role("button", name="Merge", exact=True)).to_be_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_page_fits_and_follows_the_colour_scheme(
    studio: Visited, visit: Callable[..., Page], scheme: str, size: tuple[int, int]
) -> None:
    viewport = {"width": size[0], "height": size[1]}
    page = settled(visit(studio.url, viewport=viewport, color_scheme=scheme))
    for recipe in ("creative-70b", "demo"):
        page.get_by_label("Recipe", exact=True).select_option(recipe)
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert page.evaluate(TOO_WIDE) == 0
    ground = page.evaluate("getComputedStyle(document.querySelector('.ms-card')).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (scheme == "light")


def test_every_control_has_a_name(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url))
    nameless = page.locator(".ms, .ms-head").evaluate_all(NAMELESS)
    assert nameless == []
    names = page.get_by_role("slider").evaluate_all("all => all.map((e) => e.ariaLabel)")
    assert len(names) == len(set(names)) == 7


def test_stopping_the_studio_stops_the_merge(
    start: Callable[..., Visited], visit: Callable[..., Page]
) -> None:
    studio = start("-c", WITH_STAND_IN)
    page = settled(visit(studio.url))
    name(page, "slow")
    page.get_by_role("button", name="Merge", exact=True).click()
    file = studio.data / "merges" / "slow.pid"
    end = time.monotonic() + 10
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    page.context.close()
    studio.process.send_signal(signal.SIGTERM)
    assert studio.process.wait(20) == 0
    assert not Path(f"/proc/{file.read_text()}").exists()
