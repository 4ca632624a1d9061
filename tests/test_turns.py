"""The models of a trial in one engine, one after the other: scripted engines, and the embedded."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.arena.prompts.prompt import Message, Prompt
from studio.arena.trials.answers import AnswerKey
from studio.arena.trials.design import Model
from studio.arena.trials.generate import Ask
from studio.cli.engines import Turns
from studio.cli.speaking import Start
from studio.errors import StudioError
from studio.serve.batch import Completions
from studio.serve.engine import Completion, Identity
from studio.serve.formats import choose, write_prompt
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from studio.serve.sampling import Sampling
from studio.weights.download import OnBytes
from tests.serve.engines import DEMO, greedy, text_of

ASK = Ask(
    AnswerKey("m", "p", 0),
    Prompt(id="p", category="c", messages=(Message("user", "Tell me about the lantern."),)),
    {**Sampling(temperature=0.0).as_data(), "max_tokens": 12},
    7,
)


class Scripted:
    """A fleet whose engines are told: `outcome` says what comes of a switch to a model."""

    def __init__(self, outcome: Callable[[EngineState, ModelSpec], EngineState]) -> None:
        self.calls: list[str] = []
        self.outcome = outcome
        self.dtypes: dict[str, str] = {}
        self.can_switch = True
        self.states: dict[str, EngineState] = {}

    def identity(self, spec: ModelSpec) -> Identity:
        return Identity(
            spec.name, "vllm", self.dtypes.get(spec.name, "bfloat16"), fingerprint=spec.model
        )

    def download(self, spec: ModelSpec, on_bytes: OnBytes) -> None:
        pass

    def borrow(self, spec: ModelSpec) -> None:
        return None

    def placed(self, spec: ModelSpec) -> ModelSpec:
        return spec

    def start(self, spec: ModelSpec) -> str:
        self.calls.append(f"start {spec.name}")
        name = f"engine-{len(self.calls)}"
        self.states[name] = self._holding(EngineState(name, spec), spec)
        return name

    def switch(self, name: str, model: str, label: str) -> None:
        self.calls.append(f"switch {label}")
        spec = replace(self.states[name].spec, model=model, label=label)
        self.states[name] = self.outcome(self.states[name], spec)

    def stop(self, name: str) -> None:
        self.calls.append("stop")
        self.states[name] = replace(self.states[name], phase="stopped")

    def wait(self, name: str, phases: object) -> EngineState:
        return self.states[name]

    def state(self, name: str) -> EngineState:
        return self.states[name]

    def engine(self, name: str) -> Any:
        return Says(self.states[name].identity)

    def _holding(self, state: EngineState, spec: ModelSpec) -> EngineState:
        return replace(
            state,
            phase="ready",
            spec=spec,
            identity=self.identity(spec),
            can_switch=self.can_switch,
        )

    def settles(self, state: EngineState, spec: ModelSpec) -> EngineState:
        return self._holding(state, spec)


class Says:
    """An engine that says which model is in it."""

    def __init__(self, identity: Identity | None) -> None:
        assert identity is not None
        self.identity = identity

    def complete(self, prompt: object, sampling: Sampling) -> Completion:
        return Completion(f"I am {self.identity.fingerprint}", 3, 3, "stop", 0.1)

    def close(self) -> None:
        pass


def refused(state: EngineState, spec: ModelSpec) -> EngineState:
    return replace(state, phase="ready", problem=f"{state.spec.name} stays: other shapes")


def lost(state: EngineState, spec: ModelSpec) -> EngineState:
    return replace(state, phase="failed", problem="the weights are in no known state")


def turns(fleet: Any, folder: Path) -> tuple[Turns, list[str]]:
    said: list[str] = []
    return Turns(fleet, Start(engine="vllm"), Completions(folder), said.append), said


def answer(turns: Turns, label: str) -> str:
    model = Model(label, f"models/{label}", "vicuna")
    with turns.turn(model) as speaker:
        ((_, generated),) = speaker.answers([ASK])
    assert speaker.identity["label"] == label
    return generated.text


def scripted(outcome: str | Callable[[EngineState, ModelSpec], EngineState]) -> Scripted:
    fleet = Scripted(refused)
    fleet.outcome = fleet.settles if outcome == "settles" else outcome  # type: ignore[assignment]
    return fleet


def test_models_of_one_kind_take_turns_in_one_engine(tmp_path: Path) -> None:
    fleet = scripted("settles")
    mine, said = turns(fleet, tmp_path)
    assert [answer(mine, label) for label in "abc"] == [f"I am models/{label}" for label in "abc"]
    assert fleet.calls == ["start a", "switch b", "switch c"]
    assert said[1] == "b: its weights take the place of the last model's"


@pytest.mark.parametrize(("outcome", "reason"), [(refused, "other shapes"), (lost, "no known")])
def test_a_model_that_cannot_take_the_place_gets_an_engine_of_its_own(
    tmp_path: Path, outcome: Any, reason: str
) -> None:
    fleet = scripted(outcome)
    mine, said = turns(fleet, tmp_path)
    assert [answer(mine, label) for label in "ab"] == ["I am models/a", "I am models/b"]
    assert fleet.calls == ["start a", "switch b", "stop", "start b"]
    assert any(line.startswith("b: gets an engine of its own") and reason in line for line in said)


def test_a_model_that_would_be_held_otherwise_is_not_put_in(tmp_path: Path) -> None:
    fleet = scripted("settles")
    fleet.dtypes["b"] = "float16"
    mine, said = turns(fleet, tmp_path)
    assert [answer(mine, label) for label in "ab"] == ["I am models/a", "I am models/b"]
    assert fleet.calls == ["start a", "stop", "start b"]
    assert sum("these models are not held alike (a: bfloat16; b: float16)" in s for s in said) == 1


def test_weights_that_were_packed_as_they_came_are_not_replaced(tmp_path: Path) -> None:
    fleet = scripted("settles")
    fleet.can_switch = False
    mine, _ = turns(fleet, tmp_path)
    assert [answer(mine, label) for label in "ab"] == ["I am models/a", "I am models/b"]
    assert fleet.calls == ["start a", "stop", "start b"]


def test_a_model_that_cannot_start_says_why(tmp_path: Path) -> None:
    fleet = scripted("settles")
    start = fleet.start

    def failing(spec: ModelSpec) -> str:
        name = start(spec)
        fleet.states[name] = replace(fleet.states[name], phase="failed", problem="out of memory")
        return name

    fleet.start = failing  # type: ignore[method-assign]
    mine, _ = turns(fleet, tmp_path)
    with pytest.raises(StudioError, match="a: out of memory"):
        answer(mine, "a")


def test_models_of_one_kind_follow_each_other(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(DEMO / "base/model.safetensors", other)
    (other / "config.json").write_text(
        (DEMO / "base/config.json").read_text().replace("1e-06", "2e-06")
    )
    mine, _ = turns(scripted("settles"), tmp_path)
    models = [
        Model("a", str(DEMO / "story")), Model("b", str(other)), Model("c", "http://gpu:8000"),
        Model("d", str(DEMO / "base")), Model("e", "nobody/has-this"),
    ]  # fmt: skip
    assert [model.label for model in mine.arranged(models)] == ["a", "d", "b", "c", "e"]


def test_gpus_that_others_hold_are_told_before_anything_starts(tmp_path: Path) -> None:
    fleet = scripted("settles")

    def placed(spec: ModelSpec) -> ModelSpec:
        raise StudioError(f"{spec.name}: the GPUs are in use", {"in_the_way": ["x"]})

    fleet.placed = placed  # type: ignore[method-assign]
    mine, _ = turns(fleet, tmp_path)
    with pytest.raises(StudioError, match="a: the GPUs are in use"):
        mine.arranged([Model("a", str(DEMO / "story"))])
    assert fleet.calls == []


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of real engines."""
    fleet = Fleet(tmp_path / "engines")
    yield fleet
    fleet.close()


def test_real_models_take_turns_and_each_answers_as_itself(fleet: Fleet, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(DEMO / "base", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1.1e-6}))
    said: list[str] = []
    mine = Turns(fleet, Start(engine="embedded"), Completions(tmp_path), said.append)
    engines: list[list[str]] = []
    for label, folder in {
        "story": DEMO / "story",
        "roleplay": DEMO / "roleplay",
        "base": other,
    }.items():
        with mine.turn(Model(label, str(folder), "vicuna")) as speaker:
            ((_, generated),) = speaker.answers([ASK])
        assert generated.text == by_the_book(label)
        engines.append([state.id for state in fleet.snapshot() if state.is_live])
    assert engines[0] == engines[1] != engines[2] and [len(each) for each in engines] == [1, 1, 1]
    assert any(
        "base: gets an engine of its own" in line and "rms_norm_eps" in line for line in said
    )


def by_the_book(model: str) -> str:
    """The greedy answer of a demo model, computed in this process."""
    turns = [{"role": "user", "content": ASK.prompt.messages[0].content}]
    text = write_prompt(choose("vicuna", None), None, turns).text
    return text_of(text, greedy(model, text, 12))
