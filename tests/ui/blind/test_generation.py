"""The making of answers as a background process, with stand-ins for the command."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from studio.ui.background import Job
from studio.ui.blind.generation import Generations, Wish
from studio.ui.blind.serving import Serving

DONE = """
import json, sys
wanted = ["generate", FOLDER, "--engine", "embedded", "--tensor-parallel-size", "2"]
assert sys.argv[1:] == [*wanted, "--json", "--tethered"], sys.argv
for done in range(3):
    print(json.dumps({"event": "progress", "done": done, "total": 2, "left": 2.0 - done}))
print("a word beside the data", file=sys.stderr)
print(json.dumps({"event": "done"}))
"""
REFUSED = """
import json, sys
print(json.dumps({"event": "error", "message": "demo/models/x: not a folder"}))
sys.exit(2)
"""
CRASHED = "import sys; print('on fire', file=sys.stderr); sys.exit(1)"
SLOW = """
import json, signal, sys, time
def stop(*_):
    print(json.dumps({"event": "cancelled"}), flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print(json.dumps({"event": "progress", "done": 1, "total": 9, "left": None}), flush=True)
time.sleep(60)
"""
STUBBORN = SLOW.replace("signal.signal(signal.SIGTERM, stop)", "signal.signal(15, signal.SIG_IGN)")


def started(script: str, folder: Path) -> Generations:
    text = script.replace("FOLDER", repr(str(folder)))
    generations = Generations(folder.parent, (sys.executable, "-c", text))
    generations.start(folder, Wish("embedded", 2, 8.5))
    return generations


def ended(generations: Generations) -> Job:
    end = time.monotonic() + 30
    while (now := generations.snapshot()).is_live:
        assert time.monotonic() < end
        time.sleep(0.02)
    return now


def under_way(generations: Generations) -> Job:
    end = time.monotonic() + 30
    while not (now := generations.snapshot()).total:
        assert time.monotonic() < end and now.is_live
        time.sleep(0.02)
    return now


def test_generation_is_followed_to_its_end(tmp_path: Path) -> None:
    generations = started(DONE, tmp_path / "my-trial")
    done = ended(generations)
    assert (done.state, done.name, done.done, done.total) == ("done", "my-trial", 2, 2)
    assert (done.talk, done.error) == (("a word beside the data",), "")
    (wish,) = generations.as_data()["wishes"].items()
    assert wish == ("my-trial", {"engine": "embedded", "gpus": 2, "price": 8.5})


@pytest.mark.parametrize(
    ("script", "error", "talk"),
    [
        (REFUSED, "demo/models/x: not a folder", ()),
        (CRASHED, "the process ended with code 1 and gave no reason", ("on fire",)),
    ],
)
def test_generation_that_fails_says_why(
    tmp_path: Path, script: str, error: str, talk: tuple[str, ...]
) -> None:
    failed = ended(started(script, tmp_path))
    assert failed.state == "failed" and failed.error.startswith(error) and failed.talk == talk


def test_generation_is_one_at_a_time_and_can_be_cancelled(tmp_path: Path) -> None:
    generations = started(SLOW, tmp_path / "first")
    assert under_way(generations).done == 1
    with pytest.raises(StudioError, match='answers are being made for "first"'):
        generations.start(tmp_path / "second")
    assert generations.cancel().state == "cancelling"
    assert ended(generations).state == "cancelled"
    assert generations.start(tmp_path / "second").number == 2
    generations.close()
    assert generations.snapshot().state == "cancelled"
    with pytest.raises(StudioError, match="the studio is stopping"):
        generations.start(tmp_path / "third")


def test_close_ends_a_process_that_does_not_listen(tmp_path: Path) -> None:
    generations = started(STUBBORN, tmp_path)
    under_way(generations)
    generations.close(patience=0.2)
    assert not generations.snapshot().is_live


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (("--help", 1), "choose one of the engines"),
        (("vllm", 0), "choose one of the engines"),
        (("vllm", True), "choose one of the engines"),
        (("vllm", 1, -1), "the price is what"),
        (("vllm", 1, "8"), "the price is what"),
        (("vllm", 1, float("inf")), "the price is what"),
    ],
)
def test_strange_wishes_are_refused(wish: tuple[Any, ...], told: str) -> None:
    with pytest.raises(StudioError, match=told):
        Wish(*wish)


IN_THE_WAY = """
import json, os, sys
keys = json.loads(os.environ.get("ENDPOINT_KEY", "{}"))
told = {"in_the_way": ["story-1", "elsewhere-2"], "message": f"GPU 0 is in use; {keys}"}
print(json.dumps({"event": "error", **told}))
sys.exit(2)
"""


class Engines:
    """A Serve tab with an engine and an attached server."""

    def __init__(self) -> None:
        server = ModelSpec(
            model="big", label="b", engine="endpoint", url="http://gpu:8000", key="secret"
        )
        self.states = [
            EngineState("story-1", ModelSpec(model="models/story"), "ready"),
            EngineState("b-2", server, "ready"),
        ]
        self.stopped: list[str] = []

    def snapshot(self) -> list[EngineState]:
        return self.states

    def stop(self, name: str) -> None:
        if name not in [state.id for state in self.states]:
            raise StudioError(f'there is no engine "{name}"')
        self.stopped.append(name)

    def wait(self, name: str, phases: object) -> None:
        assert name in self.stopped


def test_what_is_in_the_way_is_named_and_can_be_stopped(tmp_path: Path) -> None:
    engines = Engines()
    serving = Serving(engines)  # type: ignore[arg-type]
    generations = Generations(tmp_path, (sys.executable, "-c", IN_THE_WAY), serving)
    generations.start(tmp_path / "t")
    failed = ended(generations)
    assert failed.error == "GPU 0 is in use; {'http://gpu:8000': 'secret'}", "the key is handed on"
    assert generations.as_data()["in_the_way"] == {"story-1": "story"}
    serving.stop(["story-1"])
    assert engines.stopped == ["story-1"]
    with pytest.raises(StudioError, match="there is no engine"):
        serving.stop(["elsewhere-2"])
    with pytest.raises(StudioError, match="a list of their ids"):
        serving.stop("story-1")


def test_attached_servers_are_offered_as_models() -> None:
    assert Serving(Engines()).models() == [{"label": "b", "source": "http://gpu:8000#big"}]  # type: ignore[arg-type]
    assert Serving().models() == [] and Serving().environ() == {}
