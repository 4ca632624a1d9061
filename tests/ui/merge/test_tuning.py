"""What the page is told of the demo models, and of models that are not here."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.merge.geometry.grams import Grams
from studio.merge.geometry.sampling import Estimate, estimates
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.merge.run import merge
from studio.ui.background import STUDIO
from studio.ui.merge.bases import Bases
from studio.ui.merge.measuring import Measuring
from studio.ui.merge.presets import presets
from studio.ui.merge.tuning import MOST_WAITING, Tuner
from tests.checkpoints import write_checkpoint, write_tokenizer
from tests.faults.merging import HOUSE as HOUSE_RECIPE

ROOT = Path(__file__).parents[3]
DEMO = presets()["demo"].recipe
HOUSE = presets()["creative-70b"].recipe
BASE = "demo/models/base"
TOKENS = "\ntokenizer_source: base\n"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def tuner(tmp_path: Path) -> Tuner:
    return Tuner(Bases(tmp_path / "data", STUDIO))


def settled(tuner: Tuner, recipe: Recipe, base: str | None = None) -> dict[str, Any]:
    """The preview once nothing is measured any more."""
    until = time.monotonic() + 60
    while (found := tuner.preview(recipe, 4, base))["measuring"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def test_demo_is_assumed_at_first_and_exact_soon(tuner: Tuner) -> None:
    first = tuner.preview(DEMO, 4)
    assert (first["basis"], first["measuring"], first["heatmap"]) == ("assumed", True, None)
    found = settled(tuner, DEMO)
    assert (found["basis"], found["problem"], found["progress"]) == ("exact", "", None)
    assert found["space"] == "weights" and found["survives"] is None
    assert len(found["shares"]) == len(found["rows"]) == 7
    assert all(1 < degrees < 20 for degrees in found["stages"][0]["degrees"][:5])
    json.dumps(found, allow_nan=False)


def test_base_shows_task_vectors(tuner: Tuner) -> None:
    found = settled(tuner, DEMO, BASE)
    assert (found["space"], found["base"], found["base_problem"]) == ("task vectors", BASE, "")
    assert all(80 < degrees < 100 for degrees in found["stages"][0]["degrees"][:5])
    assert all(0 < part < 1 for part in found["survives"][1])


@pytest.mark.parametrize(
    ("base", "problem"),
    [("somebody/else", "not on this machine"), ("{folder}/other", "hidden_size")],
)
def test_base_that_cannot_be_used_is_told_and_left_out(
    tuner: Tuner, tmp_path: Path, base: str, problem: str
) -> None:
    (tmp_path / "other").mkdir()
    config = json.loads((ROOT / BASE / "config.json").read_text()) | {"hidden_size": 8}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    found = settled(tuner, DEMO, base.format(folder=tmp_path))
    assert problem in found["base_problem"]
    assert (found["space"], found["base"], found["basis"]) == ("weights", None, "exact")


def test_models_that_are_not_here_are_assumed(tuner: Tuner) -> None:
    found = tuner.preview(HOUSE, 80)
    assert (found["basis"], found["measuring"], found["layers"]) == ("assumed", False, 80)
    assert found["missing"] == list(HOUSE.sources)
    assert found["stages"][0]["degrees"] is None and found["stages"][0]["linear_share"] is None


def test_slices_say_how_deep_models_are_that_are_not_here(tuner: Tuner) -> None:
    sources = "".join(f"  - {{model: far/{name}, layer_range: [0, 28]}}\n" for name in "ab")
    text = f"merge_method: linear\nparameters: {{weight: 1}}\nslices:\n- sources:\n{sources}"
    found = tuner.preview(load_recipe(text), 4)
    assert (found["basis"], found["layers"], found["layers_named"]) == ("assumed", 28, True)
    assert not tuner.preview(HOUSE, 4)["layers_named"]
    with pytest.raises(StudioError, match="401 layers"):
        tuner.preview(load_recipe(text.replace("28", "401")), 4)


def test_table_holds_every_tensor(tuner: Tuner) -> None:
    table = tuner.tensors(HOUSE, 80)
    assert len(table["rows"]) == 723


def test_requests_beyond_those_that_may_wait_are_refused(tuner: Tuner) -> None:
    tuner.preview(HOUSE, 80)
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(tuner.preview(HOUSE, 80)["basis"])
        except StudioError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(MOST_WAITING + 3)]
    with tuner._turn:
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while len(answers) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert answers.count("assumed") == MOST_WAITING
    assert sum("too many" in str(answer) for answer in answers) == 3


def write_models(folder: Path, count: int = 3) -> Recipe:
    models = [
        write_checkpoint(folder / f"m{n}", seed=n + 1, near=(9, 0.2), layers=4)
        for n in range(count)
    ]
    return load_recipe(HOUSE_RECIPE.format(*models, t=0.5), "recipe.yaml")


def test_large_sources_are_estimated_until_they_are_measured_in_a_process(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.merge.bases.MEASURED_UP_TO", 0)
    monkeypatch.setattr("studio.merge.geometry.sampling.BLOCK_ELEMENTS", 32)
    recipe = write_models(tmp_path)
    estimated = settled(tuner, recipe)
    assert (estimated["basis"], estimated["large"], estimated["problem"]) == ("estimated", True, "")
    assert 0 < estimated["sampled"] <= 1
    assert len(estimated["share_error"]) == len(estimated["rows"])
    assert len(estimated["stages"][0]["degrees_error"]) == len(estimated["rows"])

    assert tuner.measure(recipe) == {"measuring": True, "problem": ""}
    exact = settled(tuner, recipe)
    assert (exact["basis"], exact["problem"], exact["sampled"]) == ("exact", "", None)
    assert exact["share_error"] is None
    for row, error, near in zip(
        exact["shares"], estimated["share_error"], estimated["shares"], strict=True
    ):
        assert all(abs(a - b) <= e + 2e-5 for a, b, e in zip(row, near, error, strict=True))


def test_what_was_measured_once_is_exact_at_once_for_another_studio(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_models(tmp_path)
    first = settled(tuner, recipe)
    monkeypatch.setattr("studio.ui.merge.bases.MEASURED_UP_TO", 0)
    monkeypatch.setattr("studio.ui.merge.bases.estimates", None)  # would fail if it were called
    again = settled(Tuner(Bases(tmp_path / "data", STUDIO)), recipe)
    assert again["basis"] == "exact" and again["shares"] == first["shares"]


def test_a_merge_makes_the_preview_exact(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.merge.bases.MEASURED_UP_TO", 0)
    monkeypatch.setattr("studio.ui.merge.bases.RETRY_SECONDS", 0)
    recipe = write_models(tmp_path)
    assert settled(tuner, recipe)["basis"] == "estimated"
    merge(
        check(recipe, Options()),
        tmp_path / "out",
        lambda progress: None,
        Grams(tmp_path / "data" / "grams", pytest.fail),
    )
    tuner.preview(recipe, 4)
    assert settled(tuner, recipe)["basis"] == "exact"


def test_a_source_that_changes_on_disk_is_measured_anew(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.merge.bases.RETRY_SECONDS", 0)
    recipe = write_models(tmp_path)
    before = settled(tuner, recipe)
    write_checkpoint(tmp_path / "m1", seed=77, near=(9, 0.4), layers=4)
    after = settled(tuner, recipe)
    assert after["basis"] == "exact"
    assert after["stages"][0]["degrees"][1] > 1.3 * before["stages"][0]["degrees"][1]


def test_measuring_that_fails_tells_why(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.merge.bases.MEASURED_UP_TO", 0)
    monkeypatch.setattr("studio.ui.merge.bases.estimates", lambda plan, rounds: iter(()))
    recipe = write_models(tmp_path)
    file = tmp_path / "m1" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-2:] = b"\x80\x7f"  # bfloat16 infinity
    file.write_bytes(data)
    assert settled(tuner, recipe)["basis"] == "assumed"
    tuner.measure(recipe)
    found = settled(tuner, recipe)
    assert "m1/model.safetensors: tensor" in found["problem"] and "NaN" in found["problem"]
    assert found["basis"] == "assumed"


def test_measuring_asked_for_while_blocks_are_sampled_follows(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.merge.bases.MEASURED_UP_TO", 0)
    asked = threading.Event()

    def waiting(plan: Plan, rounds: int) -> Iterator[Estimate]:
        asked.wait(20)
        yield from estimates(plan, rounds)

    monkeypatch.setattr("studio.ui.merge.bases.estimates", waiting)
    recipe = write_models(tmp_path)
    assert tuner.preview(recipe, 4)["measuring"]
    assert tuner.measure(recipe)["measuring"]
    asked.set()
    assert settled(tuner, recipe)["basis"] == "exact"


def test_models_that_cannot_merge_are_as_deep_as_asked(tmp_path: Path, tuner: Tuner) -> None:
    recipe = write_models(tmp_path)
    (tmp_path / "m1" / "config.json").write_text("{}")
    found = tuner.preview(recipe, 7)
    assert (found["basis"], found["layers"]) == ("assumed", 7)
    assert found["problem"] and found["missing"] == []


def token_models(folder: Path, *added: int) -> list[str]:
    for number, count in enumerate(added):
        model = folder / f"m{number}"
        write_checkpoint(model, seed=number + 1, near=(9, 0.2), layers=2, vocab_size=64 + count)
        write_tokenizer(model, 64, [f"<x{n}>" for n in range(count)])
    return [str(folder / f"m{number}") for number in range(len(added))]


@pytest.mark.parametrize(
    ("added", "is_told"), [((0, 0, 0), False), ((0, 0, 2), True), ((2, 0, 0), True)]
)
def test_several_stages_of_other_tokens_are_told_to_be_approximate(
    tmp_path: Path, tuner: Tuner, added: tuple[int, ...], is_told: bool
) -> None:
    models = token_models(tmp_path, *added)
    text = HOUSE_RECIPE.format(*models, t=0.5)
    found = settled(
        tuner, load_recipe(text.replace("\n---", "\ntokenizer_source: base\n---") + TOKENS)
    )
    assert (found["problem"], found["basis"]) == ("", "exact")
    assert found["note"].startswith("Embeddings and lm_head are shown appr") is is_told


def test_one_stage_of_other_tokens_is_exact_but_for_a_base_with_tokens(
    tmp_path: Path, tuner: Tuner
) -> None:
    one, two, base = token_models(tmp_path, 0, 2, 1)
    text = f"merge_method: slerp\nbase_model: {one}\nmodels: [{{model: {one}}}, {{model: {two}}}]"
    recipe = load_recipe(f"{text}\nparameters: {{t: 0.3}}{TOKENS}")
    assert settled(tuner, recipe)["note"] == ""
    assert settled(tuner, recipe, base)["note"] != ""


def test_closing_ends_a_measurement(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(600)")
    measuring = Measuring(tmp_path, command)
    ended: list[str] = []

    def run() -> None:
        try:
            measuring.run(DEMO, lambda part: None, lambda: True)
        except StudioError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    until = time.monotonic() + 20
    while measuring._process is None and time.monotonic() < until:
        time.sleep(0.01)
    measuring.close()
    thread.join(20)
    assert len(ended) == 1 and "could not be measured" in ended[0]
    with pytest.raises(StudioError, match="is stopping"):
        measuring.run(DEMO, lambda part: None, lambda: True)


PATIENT = (
    "import json; print(json.dumps({'event': 'progress', 'done': 3, 'total': 4}), flush=True); "
)
PATIENT += "import time; time.sleep(600)"


def test_measuring_is_cancelled_and_what_is_shown_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.merge.bases.MEASURED_UP_TO", 0)
    recipe = write_models(tmp_path)
    tuner = Tuner(Bases(tmp_path / "data", (sys.executable, "-c", PATIENT)))
    before = settled(tuner, recipe)
    tuner.measure(recipe)
    until = time.monotonic() + 20
    while (found := tuner.preview(recipe, 4))["progress"] != 0.75:
        assert time.monotonic() < until, found
        assert (found["basis"], found["wanted"]) == ("estimated", True)
        time.sleep(0.02)
    tuner.cancel(recipe)
    assert settled(tuner, recipe) == before | {"wanted": False}


def test_measuring_goes_on_without_a_base_that_is_not_here(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.merge.bases.MEASURED_UP_TO", 0)
    recipe, base = write_models(tmp_path), "somebody/else"
    assert settled(tuner, recipe, base)["basis"] == "estimated"
    assert tuner.measure(recipe, base)["measuring"]
    assert settled(tuner, recipe, base)["basis"] == "exact"


def test_measuring_that_waits_for_its_turn_is_cancelled_alone(tmp_path: Path) -> None:
    measuring = Measuring(tmp_path, (sys.executable, "-c", PATIENT))
    wanted = {"first": True, "second": True}
    ended: dict[str, bool] = {}

    def run(name: str) -> None:
        ended[name] = measuring.run(DEMO, lambda part: None, lambda: wanted[name])

    threads = [threading.Thread(target=run, args=(name,)) for name in wanted]
    threads[0].start()
    until = time.monotonic() + 20
    while measuring.snapshot().state != "running" and time.monotonic() < until:
        time.sleep(0.01)
    threads[1].start()
    wanted["second"] = False
    time.sleep(0.5)
    assert ended == {} and measuring.snapshot().state == "running"
    wanted["first"] = False
    for thread in threads:
        thread.join(20)
    assert ended == {"first": False, "second": False} and measuring.snapshot().number == 1


def test_sources_that_cannot_be_read_are_told(
    tmp_path: Path, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error", "m1/model.safetensors")

    monkeypatch.setattr("studio.merge.geometry.measure.measure", broken)
    found = settled(tuner, write_models(tmp_path))
    assert "m1/model.safetensors" in found["problem"] and "Input/output error" in found["problem"]
