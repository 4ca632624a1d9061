"""A person who tunes: curves, rules, stages, charts, the library, and the numbers behind them."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.ui.background import STUDIO
from studio.ui.merge.bases import Bases
from studio.ui.merge.presets import presets
from studio.ui.merge.tuning import Tuner
from tests.checkpoints import write_checkpoint
from tests.e2e.conftest import WITH_STAND_IN, Visited

DEMO = presets()["demo"].recipe
LAST = "component-1, layer 3, t"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SHARES = "Share of each source by layer"
SETTINGS = "Settings by layer"
# What a chart of lines draws: the values of each trace, by its name.
READ_LINES = """box => Object.fromEntries(box.data.filter((trace) => trace.name)
    .map((trace) => [trace.name, trace.y]))"""
READ_AREAS = "box => box.data.filter((trace) => trace.stackgroup).map((trace) => trace.y)"
SMALL = """() => [...document.querySelectorAll(".ms button, .ms input, .ms select, .ms summary")]
    .filter((e) => e.offsetParent && !e.closest(".ms-hidden") && e.type !== "file")
    .map((e) => (e.type === "checkbox" ? e.closest("label") : e))
    .map((e) => [e.ariaLabel || e.innerText || e.id, e.getBoundingClientRect()])
    .filter(([, box]) => box.height < 24 || box.width < 24).map(([name]) => name)"""


@pytest.fixture(scope="module")
def studio(start: Callable[..., Visited]) -> Visited:
    return start("-c", WITH_STAND_IN)


@pytest.fixture
def page(studio: Visited, visit: Callable[..., Page]) -> Page:
    return settled(visit(studio.url))


def settled(page: Page) -> Page:
    expect(page.get_by_text("Exact: from the angles")).to_be_visible()
    return page


def chart(page: Page, name: str) -> Locator:
    found = page.get_by_role("img", name=name)
    expect(found.locator(".trace").first).to_be_attached()
    return found


def show(page: Page, view: str) -> None:
    page.get_by_role("button", name=view, exact=True).click()


def field(page: Page, label: str) -> Locator:
    return page.get_by_label(f"{label}, exact value")


def values(page: Page, stage: str, count: int) -> list[str]:
    """What the fields of a stage's anchors say, from the first layer to the last."""
    places = [f"layer {round(30 * k / (count - 1)) / 10:g}" for k in range(count)]
    return [field(page, f"{stage}, {place}, t").input_value() for place in places]


def exported(page: Page) -> Recipe:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download YAML").click()
    return load_recipe(Path(download.value.path()).read_text())


def computed(recipe: Recipe) -> dict[str, Any]:
    """The preview as the studio computes it, from the sources themselves."""
    end = time.monotonic() + 60
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tuner = Tuner(Bases(Path(folder), STUDIO))
        while (found := tuner.preview(recipe, 4))["basis"] != "exact":
            assert time.monotonic() < end, found
            time.sleep(0.1)
    return found


def assert_shown(page: Page, recipe: Recipe) -> None:
    """The chart of shares comes to what the recipe gives in each layer."""
    found = computed(recipe)
    wanted = [
        share
        for row, share in zip(found["rows"], found["shares"], strict=True)
        if row.startswith("layer")
    ]
    end, drawn = time.monotonic() + 10, []
    while time.monotonic() < end:
        drawn = chart(page, SHARES).evaluate(READ_AREAS)
        if drawn and drawn == [
            pytest.approx(column, abs=2e-5) for column in zip(*wanted, strict=True)
        ]:
            return
        time.sleep(0.1)
    raise AssertionError((drawn, wanted))


def test_mouse_moves_an_anchor_and_the_shares_follow(page: Page) -> None:
    knob = page.get_by_role("slider", name=LAST).locator(".ms-knob").bounding_box()
    assert knob is not None
    x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    asked = []
    page.on("request", lambda request: asked.append(request.post_data or ""))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 55, steps=40)
    page.mouse.up()
    recipe = exported(page)
    assert 0.75 < recipe.stages[0].settings["t"][0].anchors[2] < 1
    assert_shown(page, recipe)  # the last move, not one on the way
    assert 0 < sum('"preview"' in body for body in asked) <= 41


def test_keyboard_adds_moves_and_removes_anchors(page: Page) -> None:
    page.get_by_role("slider", name=LAST).focus()
    page.keyboard.press("Insert")
    assert values(page, "component-1", 4) == ["0.25", "0.283", "0.367", "0.5"]
    expect(page.get_by_role("status").filter(has_text="4 anchors, evenly spaced")).to_be_visible()
    page.keyboard.press("Home")
    assert values(page, "component-1", 4) == ["0.25", "0.283", "0", "0.5"]  # it kept the focus
    page.keyboard.press("Delete")
    assert values(page, "component-1", 3) == ["0.25", "0.283", "0.5"]
    assert_shown(page, exported(page))
    for _ in range(3):
        page.get_by_role("button", name="Undo").click()
    assert values(page, "component-1", 3) == ["0.25", "0.3", "0.5"]
    page.get_by_role("button", name="Redo").click()
    assert values(page, "component-1", 4) == ["0.25", "0.283", "0.367", "0.5"]


def test_click_on_the_line_adds_and_double_click_removes(page: Page) -> None:
    card = page.get_by_role("region", name="Stage 3: Result")
    card.scroll_into_view_if_needed()
    line = card.locator(".ms-reach").bounding_box()
    assert line is not None
    page.mouse.click(line["x"] + line["width"] * 0.8, line["y"] + line["height"] / 2)
    expect(card.get_by_role("slider")).to_have_count(2)
    assert exported(page).final.settings["t"][0].anchors == (0.5, 0.5)
    card.get_by_role("slider").first.locator(".ms-knob").dblclick()
    expect(card.get_by_role("slider")).to_have_count(1)


def test_snap_keeps_to_steps(page: Page) -> None:
    page.get_by_label("Snap to 0.05").check()
    page.get_by_role("slider", name="component-1, layer 1.5, t").focus()
    page.keyboard.press("ArrowUp")
    expect(field(page, "component-1, layer 1.5, t")).to_have_value("0.35")
    page.get_by_label("Snap to 0.05").uncheck()
    page.get_by_role("slider", name="component-1, layer 1.5, t").focus()
    page.keyboard.press("ArrowUp")
    expect(field(page, "component-1, layer 1.5, t")).to_have_value("0.36")


def test_shapes_copies_and_reset_of_a_stage(page: Page) -> None:
    shape = page.get_by_label("Shape of component-1")
    shape.select_option("v")
    assert values(page, "component-1", 3) == ["0.5", "0.25", "0.5"]
    shape.select_option("ramp")
    assert exported(page).stages[0].settings["t"][0].anchors == (0.25, 0.5)
    shape.select_option("bell")
    bell = exported(page).stages[0].settings["t"][0].anchors
    assert len(bell) == 7 and bell == bell[::-1] and max(bell) == bell[3] == 0.5
    page.get_by_label("Copy another gradient to Result").select_option(label="component-1")
    assert exported(page).final.settings["t"][0].anchors == bell
    shape.select_option("flat")
    assert len(exported(page).stages[0].settings["t"][0].anchors) == 1
    assert exported(page).final.settings["t"][0].anchors == bell  # a copy, not the same list
    page.get_by_role("button", name="Reset component-1").click()
    assert values(page, "component-1", 3) == ["0.25", "0.3", "0.5"]
    expect(page.get_by_role("button", name="Reset component-1")).to_be_disabled()


def test_rule_for_attention_wins_over_the_rest(page: Page) -> None:
    page.get_by_label("Add a rule for some tensors to component-1").select_option("self_attn")
    page.keyboard.press("End")  # the new line's first point has the focus
    rules = exported(page).stages[0].settings["t"]
    assert [rule.filter for rule in rules] == ["self_attn", None]
    assert rules[0].anchors == (1, 0.3, 0.5)
    assert_shown(page, exported(page))
    show(page, "Settings")
    lines = chart(page, SETTINGS).evaluate(READ_LINES)
    assert lines["component-1, attention"][0] == 1 and lines["component-1, mlp"][0] == 0.25
    show(page, "Tensors")
    table = page.get_by_role("group", name="Table of every tensor")
    for tensor, t in (("0.self_attn.q_proj", "1"), ("0.mlp.up_proj", "0.25")):
        row = table.get_by_role("row", name=f"model.layers.{tensor}.weight")
        assert row.get_by_role("cell").nth(2).inner_text() == t
    page.get_by_role("button", name="component-1, “self_attn”: ask this rule later").click()
    expect(page.get_by_text("the rules below never apply")).to_be_visible()
    assert [rule.filter for rule in exported(page).stages[0].settings["t"]] == [None, "self_attn"]
    page.get_by_role("button", name="component-1, “self_attn”: remove this rule").click()
    assert exported(page).stages[0] == DEMO.stages[0]


def test_stages_are_added_chosen_renamed_and_deleted(page: Page) -> None:
    graph = page.get_by_role("region", name="Recipe graph")
    page.get_by_role("button", name="+ Stage").click()
    name = page.get_by_label("Name of component-3")
    expect(name).to_be_focused()
    expect(page.get_by_text("No other stage uses this one yet")).to_be_visible()
    page.get_by_label("component-3, t = 1", exact=True).select_option("demo/models/story")
    page.get_by_role("button", name="Edit Result").click()
    page.get_by_label("Result, t = 1", exact=True).select_option("component-3")
    choices = page.get_by_label("Result, t = 0", exact=True).locator("option").all_inner_texts()
    assert {"component-2", "demo/models/instruct", "Another model …"} <= set(choices)
    page.get_by_role("button", name="Edit component-3").click()
    own = page.get_by_label("component-3, t = 0", exact=True).locator("option").all_inner_texts()
    assert "component-3" not in own  # no cycles on offer
    name.fill("teller")
    name.press("Enter")
    recipe = exported(page)
    assert [stage.name for stage in recipe.stages] == ["component-1", "component-2", "teller", None]
    assert recipe.final.models == ("component-1", "teller")
    expect(
        graph.get_by_role("button", name="Stage 3, teller: slerp of roleplay and story")
    ).to_be_visible()
    assert_shown(page, recipe)
    page.get_by_role("button", name="Delete teller").click()
    assert exported(page).final.models == ("component-1", "demo/models/roleplay")
    page.get_by_role("button", name="Undo").click()
    assert exported(page) == recipe


def test_methods_bring_their_own_settings(page: Page) -> None:
    page.get_by_role("button", name="Edit component-2").click()
    method = page.get_by_label("Method of component-2")
    method.select_option("linear")
    page.get_by_role("button", name="+ Input").click()
    weights = page.get_by_role("slider", name="component-2, ").all()
    assert len(weights) == 3
    stage = exported(page).stages[1]
    assert stage.models == ("demo/models/instruct", "demo/models/story", "demo/models/roleplay")
    assert_shown(page, exported(page))
    method.select_option("karcher")
    page.get_by_label("component-2, max_iter").fill("3")
    stage = exported(page).stages[1]
    assert stage.method == "karcher" and stage.settings["max_iter"][0].anchors == (3,)
    method.select_option("slerp")
    assert exported(page).stages[1].settings["t"][0].anchors == (0.5,)


def test_method_takes_the_inputs_it_needs_from_the_sources(page: Page) -> None:
    page.get_by_role("button", name="Edit component-1").click()
    page.get_by_label("Method of component-1").select_option("model_stock")
    assert exported(page).stages[0].models == tuple(
        f"demo/models/{n}" for n in ("roleplay", "instruct", "story")
    )
    name = page.get_by_label("Name of component-1")
    name.fill("Result")
    name.press("Enter")
    expect(page.get_by_text("The last stage is called Result.")).to_be_visible()
    assert exported(page).stages[0].name == "component-1"


def test_slices_have_the_outside_places_that_follow_them(page: Page, tmp_path: Path) -> None:
    def part(layers: str) -> str:
        models = ("instruct", "story")
        inputs = [f"{{model: demo/models/{each}, layer_range: [{layers}]}}" for each in models]
        return f"{{sources: [{', '.join(inputs)}], parameters: {{t: 0.3}}}}"

    file = tmp_path / "sliced.yaml"
    head = "merge_method: slerp\nbase_model: demo/models/instruct"
    file.write_text(f"{head}\nslices: [{part('0, 2')}, {part('2, 4')}]\n")
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_label("Recipe", exact=True)).to_contain_text("sliced.yaml")
    expect(page.get_by_label("Result, Embeddings, t", exact=True)).to_have_count(1)
    page.get_by_label("Result, lm_head, t", exact=True).fill("0.9")
    first, last = exported(page).final.slices
    assert [rule.filter for rule in first.settings["t"]] == [None]
    assert [rule.filter for rule in last.settings["t"]] == ["lm_head", None]
    assert_shown(page, exported(page))


def test_places_outside_are_called_as_the_models_call_them(page: Page, tmp_path: Path) -> None:
    a, b = (write_checkpoint(tmp_path / n, "gpt_neox", seed=k) for k, n in enumerate("ab", 1))
    file = tmp_path / "neox.yaml"
    head = f"merge_method: slerp\nbase_model: {a}\nparameters: {{t: 0.3}}\n"
    file.write_text(f"{head}models: [{{model: {a}}}, {{model: {b}}}]\n")
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_label("Recipe", exact=True)).to_contain_text("neox.yaml")
    settled(page)
    page.get_by_label("Result, lm_head, t", exact=True).fill("0.9")
    rules = exported(page).final.settings["t"]
    assert [(rule.filter, rule.anchors) for rule in rules] == [
        ("embed_out", (0.9,)),
        (None, (0.3,)),
    ]
    show(page, "Tensors")
    row = page.get_by_role("row", name="embed_out.weight")
    expect(row.get_by_role("cell").nth(2)).to_have_text("0.9")


def test_what_was_said_of_a_recipe_does_not_outlast_it(page: Page, tmp_path: Path) -> None:
    expect(page.get_by_text("Ready to merge.")).to_be_visible()
    file = tmp_path / "ties.yaml"
    file.write_text("merge_method: ties\n")
    page.set_input_files("input[type=file]", file)
    expect(page.get_by_role("alert")).to_contain_text("not supported")
    page.get_by_label("Recipe", exact=True).select_option("demo")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_text("Ready to merge.")).to_be_visible()  # checked anew
    page.get_by_role("button", name="Edit component-1").click()
    page.get_by_label("component-1, t = 1", exact=True).select_option("")
    other = page.get_by_label("component-1, t = 1: folder or Hub name of a model")
    other.fill("nobody/nothing-7b")
    other.press("Enter")
    expect(page.get_by_text("nothing-7b is not on this machine")).to_be_visible()
    expect(page.get_by_text("Ready to merge.")).to_have_count(0)


def test_zoom_and_hidden_lines_survive_a_drag(page: Page) -> None:
    show(page, "Settings")
    box = chart(page, SETTINGS)
    box.locator(".legendtoggle").nth(1).click()
    expect(box.locator(".legend .traces").nth(1)).to_have_css("opacity", "0.5")
    area = box.locator(".nsewdrag").first.bounding_box()
    assert area is not None
    y = area["y"] + area["height"] / 2
    page.mouse.move(area["x"] + area["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.7, y, steps=5)
    page.mouse.up()
    page.wait_for_timeout(400)
    before = box.evaluate("box => box.layout.xaxis.range")
    assert before[1] - before[0] < 4
    page.get_by_role("slider", name=LAST).focus()
    page.keyboard.press("End")
    page.wait_for_timeout(800)
    assert box.evaluate(READ_LINES)["component-1"][-1] == 1
    assert box.evaluate("box => box._fullLayout.xaxis.range") == before
    expect(box.locator(".legend .traces").nth(1)).to_have_css("opacity", "0.5")


def test_charts_follow_the_colour_scheme(page: Page) -> None:
    show(page, "Similarity")
    text = chart(page, "Similarity by layer").locator(".xtick text").first
    light = text.evaluate("text => getComputedStyle(text).fill")
    page.evaluate("document.body.classList.add('dark')")
    expect(text).not_to_have_css("fill", light)


def test_heatmap_of_angles_and_distances(page: Page) -> None:
    show(page, "Heatmap")
    box, found = chart_of_heat(page), computed(DEMO)["heatmap"]
    assert box.evaluate("box => box.data[0].z[0]") == [row[0] for row in found["angle"]["0,1"]]
    page.get_by_label("What the heatmap shows").select_option(label="Result’s distance from story")
    page.wait_for_timeout(400)
    assert box.evaluate("box => box.data[0].z[0]") == [row[0] for row in found["distance"][2]]


def chart_of_heat(page: Page) -> Locator:
    found = page.get_by_role("img", name="Layers by modules")
    expect(found.locator(".heatmaplayer .hm").first).to_be_attached()
    return found


def test_base_model_shows_what_changed_against_it(page: Page) -> None:
    before = page.locator(".ms-legend strong").all_inner_texts()
    page.get_by_label("Compare", exact=True).select_option("demo/models/base")
    expect(page.get_by_text("Share by layer, % of the task vectors")).to_be_visible()
    settled(page)
    expect(page.locator(".ms-words")).to_contain_text("what changed from")
    assert page.locator(".ms-legend strong").all_inner_texts() != before
    show(page, "Similarity")
    page.get_by_label("Similarity by layer: which").select_option("survives")
    expect(page.get_by_text("task vector is left in the result")).to_be_visible()


def test_library_keeps_recipes_with_notes(page: Page, studio: Visited) -> None:
    field(page, LAST).fill("0.71")
    page.get_by_role("button", name="Library").click()
    library = page.get_by_role("region", name="Library")
    library.get_by_label("Name of this recipe").fill("warm teller")
    library.get_by_label("Note").fill("more of the story\nin the last layers")
    library.get_by_role("button", name="Save", exact=True).click()
    expect(library.get_by_text("Saved.")).to_be_visible()
    file = studio.data / "recipes" / "warm teller.yaml"
    assert file.read_text().startswith(
        "# more of the story\n# in the last layers\nname: component-1"
    )
    page.get_by_label("Recipe", exact=True).select_option("demo")
    expect(field(page, LAST)).to_have_value("0.5")
    page.reload()
    expect(page.get_by_label("Recipe", exact=True)).to_contain_text("warm teller")
    page.get_by_label("Recipe", exact=True).select_option("saved:warm teller")
    expect(field(page, LAST)).to_have_value("0.71")
    page.get_by_role("button", name="Library").click()
    expect(library.get_by_label("Note")).to_have_value("more of the story\nin the last layers")
    library.get_by_role("button", name="Delete warm teller").click()
    assert file.exists()  # asked twice
    library.get_by_role("button", name="Really delete").click()
    expect(library.get_by_text("Nothing saved yet.")).to_be_visible()
    assert not file.exists()


def test_a_file_of_the_library_that_cannot_be_read_is_told(page: Page, studio: Visited) -> None:
    (studio.data / "recipes" / "broken.yaml").mkdir(parents=True)
    page.get_by_role("button", name="Library").click()
    library = page.get_by_role("region", name="Library")
    expect(library.get_by_text("broken.yaml: cannot be read (Is a directory)")).to_be_visible()
    expect(library.get_by_role("button", name="Open broken")).to_have_count(0)
    page.get_by_label("Recipe", exact=True).locator("option", has_text="broken").wait_for(
        state="detached"
    )
    (studio.data / "recipes" / "broken.yaml").rmdir()


def test_a_recipe_that_another_page_deleted_is_told(page: Page, studio: Visited) -> None:
    page.get_by_role("button", name="Library").click()
    library = page.get_by_role("region", name="Library")
    library.get_by_label("Name of this recipe").fill("short-lived")
    library.get_by_role("button", name="Save", exact=True).click()
    expect(library.get_by_text("Saved.")).to_be_visible()
    library.get_by_role("button", name="Close").click()
    picker = page.get_by_label("Recipe", exact=True)
    picker.select_option("demo")
    (studio.data / "recipes" / "short-lived.yaml").unlink()
    picker.select_option("saved:short-lived")
    expect(page.get_by_role("alert")).to_contain_text('no recipe "short-lived"')
    expect(picker).to_have_value("demo")
    expect(picker.locator("option", has_text="short-lived")).to_have_count(0)


def test_undo_and_redo_outlast_a_reload(page: Page) -> None:
    field(page, LAST).fill("0.61")
    page.get_by_role("button", name="Add an anchor to component-1").click()
    assert values(page, "component-1", 4)[-1] == "0.61"
    page.reload()
    undo, redo = (page.get_by_role("button", name=name, exact=True) for name in ("Undo", "Redo"))
    undo.click()
    assert values(page, "component-1", 3)[-1] == "0.61"
    undo.click()
    assert values(page, "component-1", 3)[-1] == "0.5"
    expect(undo).to_be_disabled()
    page.reload()
    redo.click()
    redo.click()
    assert values(page, "component-1", 4)[-1] == "0.61"
    expect(redo).to_be_disabled()
    other = page.context.new_page()  # begins with the latest recipe, and a history of its own
    other.goto(page.url)
    expect(other.get_by_role("button", name="Undo", exact=True)).to_be_disabled()


def test_two_tabs_do_not_disturb_each_other(page: Page, studio: Visited) -> None:
    field(page, LAST).fill("0.61")
    page.wait_for_function("localStorage.getItem('merge-studio-draft')?.includes('0.61')")
    other = page.context.new_page()
    other.goto(studio.url)
    expect(field(other, LAST)).to_have_value("0.61")  # begins with the latest
    field(other, LAST).fill("0.16")
    other.wait_for_function("localStorage.getItem('merge-studio-draft')?.includes('0.16')")
    for tab, value in ((page, "0.61"), (other, "0.16")):
        tab.reload()
        expect(field(tab, LAST)).to_have_value(value)


def test_finger_moves_an_anchor_and_not_the_page(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    page = settled(visit(studio.url, **PHONE))
    point = page.get_by_role("slider", name=LAST)
    point.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    knob, scrolled = point.locator(".ms-knob").bounding_box(), page.evaluate("scrollY")
    assert knob is not None
    x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    fingers = page.context.new_cdp_session(page)
    for at in range(0, 60, 5):
        kind = "touchMove" if at else "touchStart"
        places = {"touchPoints": [{"x": x, "y": y - at}]}
        fingers.send("Input.dispatchTouchEvent", {"type": kind, **places})
        page.wait_for_timeout(20)
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert page.evaluate("scrollY") == scrolled
    recipe = exported(page)
    assert 0.8 < recipe.stages[0].settings["t"][0].anchors[2] < 1
    assert_shown(page, recipe)


def test_phone_has_room_for_fingers(studio: Visited, visit: Callable[..., Page]) -> None:
    page = settled(visit(studio.url, **PHONE))
    page.get_by_label("Add a rule for some tensors to component-1").select_option("self_attn")
    page.get_by_role("button", name="Edit component-2").tap()
    page.get_by_role("button", name="Library").tap()
    page.wait_for_timeout(500)
    assert page.evaluate(SMALL) == []
    for view in ("Settings", "Similarity", "Heatmap", "Tensors", "Shares"):
        show(page, view)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert_shown(page, exported(page))
