"""The handlers of the Serve tab: the owner's, checked on the server, over real demo models."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.engine import Identity
from studio.serve.planning.gpus import imagine
from studio.serve.planning.plan import Wish
from studio.serve.planning.planner import make_plan
from studio.serve.planning.quantisation import unlike
from studio.serve.planning.shapes import read_shape
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from studio.settings import Settings
from studio.ui.access import Access
from studio.ui.serve.plans import plan_answer, specs_of
from studio.ui.serve.tab import ServeDesk, _held
from studio.ui.serve.try_desk import TryDesk

TOKEN = "a token for the tests"
STORY = "demo/models/story"
RECIPE = {"stages": [{"inputs": "half-edited"}]}


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[tuple[ServeDesk, TryDesk]]:
    access = Access(Settings(host="0.0.0.0", owner_token=TOKEN))
    fleet = Fleet(tmp_path / "engines")
    trying = TryDesk(access, fleet, tmp_path / "serve")
    yield ServeDesk(access, fleet, tmp_path / "merges", trying.formats), trying
    fleet.close()


def test_every_handler_but_the_state_is_the_owners(desks: tuple[ServeDesk, TryDesk]) -> None:
    desk, trying = desks
    handlers = [
        desk.models, desk.plan, desk.start, desk.attach, desk.act, trying.read_chat, trying.say,
        trying.stop_answer, trying.clear_chat, trying.show_prompt, trying.keep_format,
        trying.sampling, trying.keep_preset,
    ]  # fmt: skip
    for handler in handlers:
        with pytest.raises(StudioError, match="is for the owner of this studio"):
            handler({"token": "wrong", "models": [STORY]})


def test_a_visitor_learns_nothing_of_the_engines(desks: tuple[ServeDesk, TryDesk]) -> None:
    desk, _ = desks
    desk.attach({"token": TOKEN, "url": "http://127.0.0.1:9", "label": "secret", "key": "k"})
    told = desk.engines({"token": None, "log": "secret"})
    assert set(told) == {"access", "engines"} and told["engines"] == []
    owner = desk.engines({"token": TOKEN})
    assert [engine["spec"]["label"] for engine in owner["engines"]] == ["secret"]
    assert '"k"' not in json.dumps(owner)


def test_what_is_no_model_says_so_and_hides_no_other(
    desks: tuple[ServeDesk, TryDesk], tmp_path: Path
) -> None:
    desk, _ = desks
    added = ["x" * 400, "a\0b", str(tmp_path), STORY]
    entries = desk.models({"token": TOKEN, "added": added})["models"]
    assert [entry["here"] for entry in entries] == [False, False, False, True]
    assert "no folder can have this name" in entries[0]["problem"]
    assert entries[1]["problem"]
    assert "there is no config.json; this folder holds no model" in entries[2]["problem"]
    assert entries[3]["problem"] == ""


def test_models_are_merges_sources_and_what_was_added(
    desks: tuple[ServeDesk, TryDesk], tmp_path: Path
) -> None:
    desk, _ = desks
    merge = tmp_path / "merges" / "mine"
    merge.mkdir(parents=True)
    for name in ("merge-report.json", "config.json", "model.safetensors"):
        (merge / name).write_text("{}")
    asked = {
        "token": TOKEN,
        "recipe": RECIPE,
        "added": [STORY, "Xwin-LM/Xwin-LM-70B-V0.1", "a/b/c"],
    }
    entries = {entry["label"]: entry for entry in desk.models(asked)["models"]}
    assert list(entries) == ["mine", "story", "Xwin-LM-70B-V0.1", "c"]
    assert (entries["mine"]["kind"], entries["mine"]["here"]) == ("finished merge", True)
    assert entries["mine"]["format"] is None and entries["story"]["format"]["name"] == "own"
    xwin = entries["Xwin-LM-70B-V0.1"]
    assert (xwin["here"], xwin["format"]["name"]) == (False, "vicuna")
    assert "there is no such folder" in entries["c"]["problem"]


def test_plan_for_the_page() -> None:
    told = plan_answer(
        {"models": [STORY], "gpus": "2x24", "wish": {"length": 256, "tp": 2}, "prompts": 10}
    )
    assert told["models"][0]["chosen"]["tp"] == 2 and told["length"] == 256 and told["imagined"]
    assert [step["name"] for step in told["costs"]] == ["load", "generate"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert plan_answer({"models": [STORY], "gpus": "cpu"})["costs"] == []
    merged = plan_answer({"models": [STORY, "demo/models/base"], "gpus": "cpu", "merge": True})
    assert [step["name"] for step in merged["costs"]] == ["download", "merge", "load"]


def test_engines_that_are_held_otherwise_are_warned_about() -> None:
    def ready(label: str, dtype: str | None) -> EngineState:
        spec = ModelSpec(model=label, engine="embedded")
        return EngineState(label, spec, "ready", identity=Identity(label, "embedded", dtype))

    assert unlike(_held([ready("a", "float32"), ready("b", "float32"), ready("c", None)])) == ""
    assert "b: float16; a: float32" in unlike(_held([ready("a", "float32"), ready("b", "float16")]))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "must be a list of names"),
        ({"models": []}, "choose 1 to 8 models"),
        ({"models": ["x" * 501]}, "at most 500 characters"),
        ({"models": [STORY], "wish": {"tensor": 2}}, "'tensor' is not a wish"),
        ({"models": [STORY], "wish": {"dtype": 2}}, "dtype is 2; it is a name"),
        ({"models": [STORY], "wish": []}, "the wishes must be an object"),
        ({"models": [STORY], "gpus": 4}, "write GPUs as 4x80"),
        ({"models": [STORY], "rates": {"gpu_hour": True}}, "the rates must be numbers"),
        ({"models": [STORY], "prompts": -1}, "answers wanted are -1"),
    ],
)
def test_plan_refuses(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        plan_answer(request_)


def test_what_was_planned_is_what_is_started() -> None:
    config = json.loads((Path(STORY) / "config.json").read_text())
    shape = read_shape(config | {"hidden_size": 8192, "num_hidden_layers": 30}, "m")
    wish = Wish(quantisation="fp8", kv_cache="fp8", length=500, tp=2)
    plan = make_plan({"a/m": shape, "n": shape}, imagine("4x80"), wish)
    with pytest.raises(StudioError, match="hardware that is not here"):
        specs_of(plan, "vllm", ["a/m"], None)
    here = replace(plan, found=replace(plan.found, imagined=False))
    one, other = specs_of(here, "vllm", ["a/m", "n"], 5.0)
    assert (one.model, one.label, one.tensor_parallel_size, one.gpus) == ("a/m", "m", 2, (0, 1))
    assert (other.gpus, other.quantisation, other.max_model_len) == ((2, 3), "fp8_per_tensor", 500)
    assert (one.dtype, one.kv_cache_gib, one.idle_minutes) == ("bfloat16", None, 5.0)
    assert one.kv_cache == other.kv_cache == "fp8"


def test_actions_that_cannot_be(desks: tuple[ServeDesk, TryDesk]) -> None:
    desk, _ = desks
    for request, message in (
        ({"id": "x", "action": "close"}, "'close' cannot be done"),
        ({"id": "x", "action": "stop"}, 'there is no engine "x"'),
        ({"id": "x", "action": "switch"}, "must be a list of names"),
    ):
        with pytest.raises(StudioError, match=message):
            desk.act({"token": TOKEN, **request})
    with pytest.raises(StudioError, match="there is no engine 'endpoint'"):
        desk.start({"token": TOKEN, "models": [STORY], "engine": "endpoint"})
    with pytest.raises(StudioError, match="nowhere is not in the plan"):
        desk.start({"token": TOKEN, "models": [STORY], "engine": "vllm", "only": ["nowhere"]})
    with pytest.raises(StudioError, match="idle_minutes is 'soon'"):
        desk.start({"token": TOKEN, "models": [STORY], "engine": "vllm", "idle_minutes": "soon"})


def test_prompt_is_shown_as_it_is_sent_and_an_edited_format_is_kept(
    desks: tuple[ServeDesk, TryDesk],
) -> None:
    _, trying = desks
    asked = {"token": TOKEN, "model": STORY, "text": "Hi!"}
    told = trying.show_prompt(asked)
    assert told["text"] == "<s>### Instruction:\nHi!\n\n### Response:\n" and told["warnings"] == []
    assert told["tokens"] is not None
    wrong = trying.show_prompt({**asked, "format": {"name": "vicuna"}})
    assert "was trained on its own prompts and is asked in vicuna" in wrong["warnings"][0]
    own = {"name": "edited", "template": "<{{ messages[0].content }}>", "stop": ["<"]}
    trying.keep_format({**asked, "format": own})
    kept = trying.show_prompt(asked)
    assert (kept["text"], kept["format"]["stop"]) == ("<Hi!>", ["<"])
    trying.keep_format({**asked, "forget": True})
    assert trying.show_prompt(asked) == told
    with pytest.raises(StudioError, match="choose one below: alpaca"):
        trying.show_prompt({"token": TOKEN, "model": "some/model"})


def test_presets_of_the_user(desks: tuple[ServeDesk, TryDesk]) -> None:
    _, trying = desks
    told = trying.keep_preset({"token": TOKEN, "name": "mine", "sampling": {"top_k": 40}})
    assert told["presets"]["mine"]["top_k"] == 40 and "mine" not in told["shipped"]
    told = trying.keep_preset({"token": TOKEN, "name": "mine", "forget": True})
    assert list(told["presets"]) == told["shipped"]
