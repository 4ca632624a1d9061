"""How vLLM servers end: killed from outside in every part, stopped too early, or never started."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from studio.serve.processes import keeper
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.model_files import ModelFiles
from studio.serve.processes.proc_table import belonging, shared_memory
from studio.serve.processes.spec import ModelSpec
from studio.serve.sampling import Sampling
from tests.serve.engines import DEMO, MODEL, QUESTION, greedy, ready, text_of, titles
from tests.test_architecture import ROOT

pytestmark = pytest.mark.timeout(400)

GREEDY = Sampling(temperature=0.0, max_tokens=24)
ENDED = ("failed", "stopped")
SPEC = ModelSpec(model=str(DEMO / MODEL), tensor_parallel_size=2)


STUDIO = """
import sys, time
from pathlib import Path
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
fleet = Fleet(Path(sys.argv[1]))
name = fleet.start(ModelSpec(model=sys.argv[2], tensor_parallel_size=2))
state = fleet.wait(name, ("ready", "failed"), 240)
print(name, state.phase, state.problem, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_studio_leaves_no_vllm(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    studio = subprocess.Popen(
        [sys.executable, "-c", STUDIO, str(folder), str(DEMO / MODEL)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert studio.stdout is not None
    name, phase, *problem = studio.stdout.readline().split()
    assert phase == "ready", problem
    log = folder / name / "log.txt"
    assert {"tether", "server", "EngineCore", "Worker_TP0", "Worker_TP1"} <= set(titles(log))
    shared = shared_memory(belonging(log))
    assert shared
    studio.kill()
    studio.communicate()
    end = time.monotonic() + 40
    while belonging(log) and time.monotonic() < end:
        time.sleep(0.1)
    assert belonging(log) == set()
    assert not [path for path in shared if Path(path).exists()]
    assert Fleet(folder).found == (f"{name}: cleaned, nothing was running",)


@pytest.fixture(scope="module")
def victim(fleet: Fleet) -> str:
    """The id of a vLLM server that may be harmed."""
    return ready(fleet, SPEC)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["Worker_TP1", "EngineCore", "server", "tether"])
def test_a_killed_part_is_seen_and_the_engine_starts_again(
    fleet: Fleet, victim: str, part: str
) -> None:
    log = fleet.folder / victim / "log.txt"
    if fleet.state(victim).phase == "failed":
        fleet.restart(victim)
        assert fleet.wait(victim, ("starting",), 30).phase == "starting"
        assert fleet.wait(victim, ("ready", *ENDED), 240).phase == "ready"
    with closing(fleet.engine(victim)) as engine:
        done = engine.complete(QUESTION, GREEDY)
    assert done.text == text_of(QUESTION, greedy(MODEL, QUESTION, 24))
    shared = shared_memory(belonging(log))
    time.sleep(2.5)  # the tether looks at shared memory every two seconds
    os.kill(titles(log)[part], signal.SIGKILL)
    state = fleet.wait(victim, ENDED, 60)
    assert (state.phase, belonging(log)) == ("failed", set())
    assert "killed from outside" in state.problem
    assert not [path for path in shared if Path(path).exists()]


@pytest.mark.slow
@pytest.mark.parametrize("members", [2, 5])
def test_stop_while_vllm_starts(fleet: Fleet, members: int) -> None:
    """At once, and when the workers are up: SIGTERM would hang there."""
    name = fleet.start(SPEC)
    log = fleet.folder / name / "log.txt"
    end = time.monotonic() + 120
    while len(belonging(log)) < members:
        assert time.monotonic() < end
        time.sleep(0.1)
    fleet.stop(name)
    state = fleet.wait(name, ENDED, 60)
    assert (state.phase, state.problem) == ("stopped", "")
    assert belonging(log) == set()


@pytest.mark.slow
def test_vllm_says_why_the_context_is_too_long(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "check", lambda spec: None)
    spec = ModelSpec(model=str(DEMO / MODEL), max_model_len=4096)
    state = fleet.wait(fleet.start(spec), ("ready", *ENDED), 240)
    assert state.phase == "failed"
    assert "a context of 4096 tokens is longer than the 512 the model was made for" in state.problem
    assert "User-specified max_model_len (4096)" in state.line


@pytest.mark.slow
def test_vllm_says_why_the_heads_do_not_divide(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "check", lambda spec: None)
    spec = ModelSpec(model=str(DEMO / MODEL), tensor_parallel_size=3)
    state = fleet.wait(fleet.start(spec), ("ready", *ENDED), 240)
    assert state.phase == "failed"
    assert "8 attention heads cannot be shared evenly by 3 ranks" in state.problem
    assert "must be divisible by tensor parallel size (3)" in state.line


def in_two_files(folder: Path) -> Path:
    """A copy of the model `roleplay` with its last tensor in a file of its own: that file."""
    shutil.copytree(DEMO / MODEL, folder)
    first, second = folder / "model.safetensors", folder / "model-00002-of-00002.safetensors"
    tensors = load_file(first)
    *others, last = tensors
    save_file({name: tensors[name] for name in others}, first)
    save_file({last: tensors[last]}, second)
    index = {"weight_map": dict.fromkeys(others, first.name) | {last: second.name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reloads", "says"), [(True, "of weights are missing: "), (False, "files that are not there: ")]
)
def test_vllm_says_which_file_is_missing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reloads: bool, says: str
) -> None:
    """It goes after the studio's checks: what then says so is the studio's loader, or vLLM's."""
    weights = in_two_files(tmp_path / "model")

    def planned(spec: ModelSpec, files: ModelFiles) -> bool:
        weights.unlink(missing_ok=True)
        return reloads

    monkeypatch.setattr(keeper, "reloads_in_place", planned)
    state = fleet.wait(fleet.start(ModelSpec(model=str(weights.parent))), ("ready", *ENDED), 240)
    assert state.phase == "failed"
    assert says in state.problem and weights.name in state.problem
    assert "download" in state.problem and "Error: " in state.line
