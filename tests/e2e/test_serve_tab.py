"""A person at the Serve tab: plan, start, talk, change weights, stop; what others see of it."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from studio.serve.processes.proc_table import PROC, belonging
from tests.e2e.conftest import TOKEN, Visited
from tests.e2e.test_merge_tab import NAMELESS, TOO_WIDE
from tests.faults.hub_double import serve
from tests.serve.engines import DEMO

# Whether an element has the colour of what is wrong.
LOOKS_BAD = """element => {
    const other = element.cloneNode();
    other.className = "ms-error";
    element.after(other);
    const same = getComputedStyle(element).color === getComputedStyle(other).color;
    other.remove();
    return same;
}"""
UP = 90_000  # an embedded engine takes some seconds to import what it needs


@pytest.fixture(scope="module")
def studio(start: Callable[..., Visited]) -> Iterator[Visited]:
    return start("app.py")


def serving(page: Page) -> Page:
    page.get_by_role("tab", name="Serve").click()
    expect(page.get_by_role("region", name="Models")).to_be_visible()
    return page


def engine(page: Page, label: str = "story") -> Locator:
    return page.get_by_role("article", name=label)


def choose(page: Page, *labels: str) -> None:
    boxes = page.get_by_role("region", name="Models").get_by_role("checkbox")
    expect(boxes.first).to_be_visible()
    for box in boxes.all():
        wanted = (box.get_attribute("data-model") or "").rpartition("/")[2] in labels
        box.set_checked(wanted)


def start_story(page: Page) -> None:
    """Start the model `story`, unless an earlier test left it running."""
    if engine(page).locator(".ms-phase-ready").count():
        return
    choose(page, "story")
    page.get_by_label("Engine", exact=True).select_option("embedded")
    page.get_by_role("button", name="Start story").click()
    expect(engine(page)).to_be_visible()


def is_up(page: Page) -> None:
    expect(engine(page).get_by_role("status")).to_have_text("ready", timeout=UP)


def test_plan_start_reload_talk_change_weights_and_stop(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    page = serving(visit(studio.url))
    expect(page.get_by_text("No engine runs.")).to_be_visible()
    expect(page.get_by_text("Start an engine to talk to it.")).to_be_visible()
    choose(page, "story")
    expect(page.get_by_text("It fits.")).to_be_visible()
    start_story(page)
    expect(engine(page).get_by_role("progressbar")).to_be_visible()
    page.reload()  # a long start is the server's: the page may come and go
    page = serving(page)
    expect(engine(page)).to_be_visible()
    other = serving(visit(studio.url))
    expect(engine(other)).to_be_visible()
    is_up(page)
    is_up(other)
    expect(engine(page)).to_contain_text("embedded engine")

    message = page.get_by_label("Message", exact=True)
    message.fill("Tell me of the sea.")
    message.press("Enter")
    answer = page.locator(".ms-assistant .ms-said")
    expect(answer).not_to_be_empty()
    facts = page.locator(".ms-assistant .ms-facts")
    expect(facts).to_have_text(re.compile(r"\d+ tokens in [\d.]+ s"))
    expect(page.get_by_role("button", name="Again")).to_be_enabled()
    said = answer.inner_text()
    expect(other.locator(".ms-assistant .ms-said")).to_have_text(said)
    page.reload()
    page = serving(page)
    expect(page.locator(".ms-user .ms-said")).to_have_text("Tell me of the sea.")
    expect(page.locator(".ms-assistant .ms-said")).to_have_text(said)

    engine(page).get_by_label("Model to change to").select_option(label="instruct")
    engine(page).get_by_role("button", name="Change weights").click()
    changed = engine(page, "instruct")
    expect(changed.get_by_role("status")).to_have_text("ready")
    expect(changed).to_contain_text(re.compile(r"Weights changed in [\d.]+ s: .*B, .*B/s"))
    changed.get_by_role("button", name="Stop", exact=True).click()
    expect(changed.get_by_role("status")).to_have_text("stopped")
    expect(page.get_by_text("Start an engine to talk to it.")).to_be_visible()
    changed.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("No engine runs.")).to_be_visible()
    expect(other.get_by_text("No engine runs.")).to_be_visible()


def test_sampling_format_and_a_stopped_answer(studio: Visited, visit: Callable[..., Page]) -> None:
    page = serving(visit(studio.url))
    start_story(page)
    is_up(page)
    page.get_by_text("Prompt format", exact=True).click()
    sent = page.get_by_label("The prompt as it is sent")
    expect(sent).to_have_text("<s>### Instruction:\nHello!\n\n### Response:\n")
    page.get_by_label("Prompt format", exact=True).select_option("vicuna")
    expect(page.get_by_text("a wrong format is the most common cause")).to_be_visible()
    page.get_by_label("Prompt format", exact=True).select_option("own")
    page.get_by_text("Edit the template").click()
    template = page.get_by_label("Template, in Jinja")
    template.fill("{% for %}")
    page.get_by_role("button", name="Use", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("not valid Jinja")
    page.get_by_label("Prompt format", exact=True).select_option("own")
    expect(sent).to_have_text("<s>### Instruction:\nHello!\n\n### Response:\n")

    page.get_by_text("Sampling: every parameter").click()
    page.get_by_label("Sampling preset").select_option("creative")
    expect(page.get_by_label("min_p")).to_have_value("0.08")
    page.get_by_label("Temperature").fill("1.4")
    page.get_by_label("Temperature").blur()
    expect(page.get_by_label("Sampling preset")).to_have_value("")
    page.get_by_label("Name of the preset").fill("hot")
    page.get_by_role("button", name="Save preset").click()
    expect(page.get_by_label("Sampling preset")).to_have_value("hot")
    page.reload()
    page = serving(page)
    expect(page.get_by_label("Sampling preset")).to_have_value("hot")
    page.get_by_text("Sampling: every parameter").click()
    expect(page.get_by_label("Temperature")).to_have_value("1.4")
    page.get_by_role("button", name="Forget preset").click()
    expect(page.get_by_label("Sampling preset")).to_have_value("")
    page.get_by_label("top_p").fill("7")
    page.get_by_label("top_p").blur()
    page.get_by_label("Message", exact=True).fill("Go on.")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("top_p is 7")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Go on.")
    page.get_by_label("Sampling preset").select_option("wild")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".ms-assistant .ms-said")).not_to_be_empty()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".ms-turn")).to_have_count(0)


def test_other_hardware_is_planned_and_not_started(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    page = serving(visit(studio.url))
    choose(page)
    expect(page.get_by_text("Choose one or more models")).to_be_visible()
    field = page.get_by_label("Folder or Hub id")
    for model in ("Xwin-LM/Xwin-LM-70B-V0.1", "NousResearch/Nous-Hermes-Llama2-70b"):
        field.fill(model)
        field.press("Enter")
    plan = page.get_by_role("region", name="Plan")
    expect(plan.get_by_text("This does not fit.")).to_be_visible()
    page.get_by_label("GPUs").fill("8x80")
    page.get_by_label("GPUs").press("Enter")
    page.get_by_label("GPUs").blur()
    expect(plan.get_by_text("They fit side by side.")).to_be_visible()
    expect(plan.locator(".ms-gpu")).to_have_count(8)
    expect(plan.get_by_text("A plan for other hardware.")).to_be_visible()
    expect(plan.get_by_role("button", name=re.compile("^Start"))).to_have_count(0)
    plan.get_by_text("Every way to divide them").click()
    expect(plan.locator(".ms-chosen")).to_contain_text("32.1 GiB")
    page.get_by_label("GPUs").fill("2x80")
    page.get_by_label("GPUs").blur()
    expect(plan.get_by_text("They fit one at a time.")).to_be_visible()
    expect(plan.locator(".ms-gpu")).to_have_count(2)
    expect(plan.locator(".ms-gpu").first).to_contain_text("each of GPU 0–1")
    page.get_by_label("GPUs").fill("5x80")
    page.get_by_label("GPUs").blur()
    expect(plan.get_by_text("GPU 4: not needed.")).to_be_visible()
    page.get_by_label("GPUs").fill("1x141")
    page.get_by_label("GPUs").blur()
    expect(plan.get_by_text("This does not fit.")).to_be_visible()
    expect(plan.get_by_text("--distributed-executor-backend ray")).to_be_visible()
    page.get_by_label("GPUs").fill("many")
    page.get_by_label("GPUs").blur()
    expect(plan.get_by_role("alert")).to_contain_text("does not say which GPUs")
    page.get_by_label("GPUs").fill("")
    page.get_by_label("GPUs").blur()
    page.get_by_role("button", name="Remove Xwin-LM-70B-V0.1 from the list").click()
    expect(page.get_by_role("button", name="Remove Xwin-LM-70B-V0.1")).to_have_count(0)


def test_a_failure_names_its_cause_and_the_log_is_there(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    page = serving(visit(studio.url))
    page.get_by_text("Attach to a server that runs elsewhere").click()
    page.get_by_label("URL: http://HOST:PORT").fill("http://127.0.0.1:9")
    page.get_by_role("button", name="Attach").click()
    failed = page.get_by_role("article").filter(has_text="http://127.0.0.1:9")
    expect(failed.get_by_role("status")).to_have_text("failed", timeout=60_000)
    expect(failed.get_by_role("alert")).to_contain_text("127.0.0.1:9")
    assert failed.get_by_role("status").evaluate(LOOKS_BAD)
    expect(page.get_by_label("URL: http://HOST:PORT")).to_have_value("http://127.0.0.1:9")
    failed.get_by_role("button", name="Remove").click()
    expect(failed).to_have_count(0)
    start_story(page)
    is_up(page)
    engine(page).get_by_text("Log", exact=True).click()
    expect(engine(page).get_by_label("Log of the engine")).to_contain_text("Loading weights")


def test_one_of_two_engines_is_killed_and_starts_again(
    studio: Visited, visit: Callable[..., Page]
) -> None:
    page = serving(visit(studio.url))
    start_story(page)
    is_up(page)
    choose(page, "instruct")
    page.get_by_label("Engine", exact=True).select_option("embedded")
    page.get_by_role("button", name="Start instruct").click()
    killed = engine(page, "instruct")
    expect(killed.get_by_role("status")).to_have_text("ready", timeout=UP)
    (log,) = (studio.data / "engines").glob("instruct-*/log.txt")
    commands = {pid: (PROC / str(pid) / "cmdline").read_bytes() for pid in belonging(log)}
    (process,) = (pid for pid, command in commands.items() if b"tether" not in command)
    os.kill(process, signal.SIGKILL)
    expect(killed.get_by_role("status")).to_have_text("failed")
    expect(killed.get_by_role("alert")).to_contain_text("It was killed from outside")
    expect(engine(page).get_by_role("status")).to_have_text("ready")
    expect(page.get_by_label("Engine to talk to").locator("option")).to_have_text(["story"])
    killed.get_by_role("button", name="Start again").click()
    expect(killed.get_by_role("status")).to_have_text("starting")
    expect(killed.get_by_role("alert")).to_have_count(0)
    expect(killed.get_by_role("status")).to_have_text("ready", timeout=UP)
    killed.get_by_role("button", name="Stop", exact=True).click()
    expect(killed.get_by_role("status")).to_have_text("stopped")
    killed.get_by_role("button", name="Remove").click()
    expect(killed).to_have_count(0)


@pytest.mark.slow
def test_what_is_in_the_way_of_a_start_or_a_trial_can_make_room(
    start: Callable[..., Visited], visit: Callable[..., Page]
) -> None:
    """On a machine with one GPU, which an engine has."""
    page = serving(visit(start("tests/e2e/one_gpu.py", "app").url))
    start_story(page)
    is_up(page)
    choose(page, "instruct")
    page.get_by_role("button", name="Start instruct").click()
    plan = page.get_by_role("region", name="Plan")
    expect(plan.get_by_role("alert")).to_contain_text("GPU 0 is in use by story; give each")
    page.get_by_role("tab", name="Blind").click()
    page.get_by_role("button", name="Set up a demo trial").click()
    page.get_by_role("button", name="Create the trial").click()
    trial = page.get_by_role("region", name="Trial demo")
    expect(trial.get_by_role("alert")).to_contain_text("1 GPU needed, 0 of 1 free; story (")
    expect(trial.locator("pre")).to_have_count(0)
    trial.get_by_role("button", name="Stop story and generate").click()
    expect(trial.get_by_role("button", name="Rate", exact=True)).to_be_visible(timeout=UP)
    page.get_by_role("tab", name="Serve").click()
    expect(engine(page).get_by_role("status")).to_have_text("stopped")
    expect(plan.get_by_role("alert")).to_have_count(0)


def test_a_start_is_cancelled(studio: Visited, visit: Callable[..., Page]) -> None:
    page = serving(visit(studio.url))
    choose(page, "roleplay")
    page.get_by_label("Engine", exact=True).select_option("embedded")
    page.get_by_role("button", name="Start roleplay").click()
    starting = engine(page, "roleplay")
    expect(starting.get_by_role("progressbar")).to_be_visible()
    starting.get_by_role("button", name="Stop", exact=True).click()
    expect(starting.get_by_role("status")).to_have_text("stopped", timeout=UP)
    expect(starting.get_by_role("alert")).to_have_count(0)
    (log,) = (studio.data / "engines").glob("roleplay-*/log.txt")
    assert list(belonging(log)) == []
    starting.get_by_role("button", name="Remove").click()
    expect(starting).to_have_count(0)


def test_a_download_is_shown_and_cancelled(
    start: Callable[..., Visited], visit: Callable[..., Page], tmp_path: Path
) -> None:
    folder = tmp_path / "remote"
    shutil.copytree(DEMO / "story", folder)
    os.truncate(folder / "model.safetensors", 64 << 20)
    with serve({"maker/far": folder}) as hub:
        hub.slow.add("model.safetensors")
        page = serving(visit(start("app.py", **hub.environment(tmp_path / "home")).url))
        page.get_by_label("Folder or Hub id", exact=True).fill("maker/far")
        page.get_by_role("button", name="Add", exact=True).click()
        choose(page, "far")
        page.get_by_label("Engine", exact=True).select_option("embedded")
        page.get_by_role("button", name="Start far").click()
        far = engine(page, "far")
        told = far.get_by_text(re.compile(r"^downloading: [0-9.]+ MB of 67\.1 MB · .* so far$"))
        expect(told).to_be_visible(timeout=UP)
        bar = far.get_by_role("progressbar")
        expect(bar).to_have_attribute("aria-valuenow", re.compile("[0-9]"))
        far.get_by_role("button", name="Stop", exact=True).click()
        expect(far.get_by_role("status")).to_have_text("stopped", timeout=UP)
        assert hub.sent < 64 << 20
    assert not list((tmp_path / "home").rglob("*.incomplete"))


def test_the_tab_is_the_owners(start: Callable[..., Visited], visit: Callable[..., Page]) -> None:
    owned = start("app.py", STUDIO_HOST="0.0.0.0", STUDIO_OWNER_TOKEN=TOKEN)
    page = visit(owned.url)
    page.get_by_role("tab", name="Serve").click()
    expect(page.get_by_text("Serving is the owner's")).to_be_visible()
    expect(page.get_by_role("region", name="Models")).to_be_hidden()
    page.get_by_label("Owner token").fill(TOKEN)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("region", name="Models")).to_be_visible()
    expect(page.get_by_text("Serving is the owner's")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_the_tab_fits_and_every_control_has_a_name(
    studio: Visited, visit: Callable[..., Page], scheme: str, size: tuple[int, int]
) -> None:
    viewport = {"width": size[0], "height": size[1]}
    page = serving(visit(studio.url, viewport=viewport, color_scheme=scheme))
    start_story(page)
    is_up(page)
    choose(page, "story", "instruct")
    expect(page.get_by_text("They fit side by side.")).to_be_visible()
    expect(page.locator(".ms-gpu")).to_have_text("memoryinstruct, story")
    for summary in page.locator("#serve-tab summary").all():
        summary.click()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert page.evaluate(TOO_WIDE) == 0
    assert page.locator("#serve-tab .ms").evaluate_all(NAMELESS) == []


def test_stopping_the_studio_stops_its_engines(
    start: Callable[..., Visited], visit: Callable[..., Page]
) -> None:
    own = start("app.py")
    page = serving(visit(own.url))
    start_story(page)
    is_up(page)
    (log,) = (own.data / "engines").glob("*/log.txt")
    assert list(belonging(log)) != []
    page.context.close()
    own.process.terminate()
    assert own.process.wait(40) == 0
    assert list(belonging(log)) == []
