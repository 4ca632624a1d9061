"""The life of engines, told by their states: embedded ones, which start within seconds."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.engine import EngineGone
from studio.serve.processes import process
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.proc_table import PROC, belonging
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from studio.serve.processes.vllm_command import Machine
from studio.serve.sampling import Sampling
from tests.serve.engines import DEMO, ENDLESS, QUESTION, greedy, ready, text_of
from tests.test_architecture import ROOT

GREEDY = Sampling(temperature=0.0, max_tokens=12)
ENDED = ("failed", "stopped")
TETHER = b"studio.serve.processes.tether"


def embedded(model: str | Path = "story", **values: Any) -> ModelSpec:
    return ModelSpec(**{"model": str(DEMO / model), "engine": "embedded"} | values)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of this test alone."""
    fleet = Fleet(tmp_path / "engines")
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, str]]:
    """A fleet and its engine that is ready, for tests that leave it so."""
    fleet = Fleet(tmp_path_factory.mktemp("shared") / "engines")
    yield fleet, ready(fleet, embedded(open_port=True))
    fleet.close()


def log_of(fleet: Fleet, name: str) -> Path:
    return fleet.folder / name / "log.txt"


def server_of(fleet: Fleet, name: str) -> int:
    """The process that answers: the tether's child."""
    for pid in belonging(log_of(fleet, name)):
        arguments = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        if {b"studio.serve.embedded", TETHER} & {*arguments} == {b"studio.serve.embedded"}:
            return pid
    raise AssertionError("no server")


def says(fleet: Fleet, name: str, model: str) -> bool:
    with closing(fleet.engine(name)) as engine:
        done = engine.complete(QUESTION, GREEDY)
    return done.text == text_of(QUESTION, greedy(model, QUESTION, 12))


def failed(fleet: Fleet, spec: ModelSpec) -> EngineState:
    state = fleet.wait(fleet.start(spec), ("ready", *ENDED), 60)
    assert state.phase == "failed"
    return state


def test_two_engines_live_side_by_side_and_stop_without_a_trace(own: Fleet) -> None:
    names = [own.start(embedded(model)) for model in ("story", "roleplay")]
    for name, model in zip(names, ("story", "roleplay"), strict=True):
        state = own.wait(name, ("ready", *ENDED), 60)
        assert state.phase == "ready" and says(own, name, model)
        assert state.seconds_to_ready and state.max_model_len == 512 and state.can_switch
        assert state.identity is not None and state.identity.dtype == "float32"
    assert [state.id for state in own.snapshot()] == names
    assert any("Loading weights" in line for line in own.log(names[0]))
    with closing(own.engine(names[0])) as engine:
        own.stop(names[0])
        assert own.wait(names[0], ENDED, 30).phase == "stopped"
        assert belonging(log_of(own, names[0])) == set()
        with pytest.raises(EngineGone, match="does not answer"):
            engine.complete(QUESTION, GREEDY)
    with pytest.raises(StudioError, match="the engine is stopped"):
        own.engine(names[0])
    assert says(own, names[1], "roleplay")
    with pytest.raises(StudioError, match="the engine is ready; stop it first"):
        own.forget(names[1])
    own.forget(names[0])
    assert [state.id for state in own.snapshot()] == names[1:]
    own.close()
    assert belonging(log_of(own, names[1])) == set()


def test_a_killed_engine_is_seen_and_can_be_started_again(own: Fleet) -> None:
    name = ready(own, embedded())
    server = server_of(own, name)
    with closing(own.engine(name)) as engine:
        stream = engine.stream([5] * 4, ENDLESS)
        next(stream)
        os.kill(server, signal.SIGKILL)
        with pytest.raises(EngineGone):
            list(stream)
    state = own.wait(name, ENDED, 30)
    assert (state.phase, belonging(log_of(own, name))) == ("failed", set())
    assert "killed from outside" in state.problem
    own.restart(name)
    assert own.wait(name, ("starting",), 10).phase == "starting"
    assert own.wait(name, ("ready", *ENDED), 60).phase == "ready"
    assert own.state(name).problem == "" and says(own, name, "story")


def test_a_killed_tether_takes_its_engine_along(own: Fleet) -> None:
    name = ready(own, embedded())
    server = server_of(own, name)
    (tether,) = belonging(log_of(own, name)) - {server}
    os.kill(tether, signal.SIGKILL)
    assert own.wait(name, ENDED, 30).phase == "failed"
    assert belonging(log_of(own, name)) == set()


def test_stop_while_it_starts(own: Fleet) -> None:
    name = own.start(embedded())
    while not belonging(log_of(own, name)):
        time.sleep(0.02)
    own.stop(name)
    state = own.wait(name, ENDED, 30)
    assert (state.phase, state.problem) == ("stopped", "")
    assert belonging(log_of(own, name)) == set()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (embedded("nowhere"), "there is no such folder; check the path"),
        (embedded(max_model_len=4096), "max_model_len is 4096, but the model was made for at most"),
        (
            ModelSpec(model=str(DEMO / "story"), tensor_parallel_size=3),
            "its 8 attention heads cannot be shared evenly by 3 ranks; use a tensor parallel size",
        ),
    ],
    ids=["folder", "context", "heads"],
)
def test_what_cannot_be_started_says_why(own: Fleet, spec: ModelSpec, message: str) -> None:
    assert message in failed(own, spec).problem


def test_a_taken_port_says_so(own: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(process, "free_port", lambda: port)
        state = failed(own, embedded(open_port=True))
    assert "another program took the engine's port" in state.problem


def test_an_idle_engine_stops_by_itself(own: Fleet) -> None:
    name = own.start(embedded(idle_minutes=0.02))
    state = own.wait(name, ENDED, 90)
    assert (state.phase, state.note) == ("stopped", "stopped after 0.02 idle minutes")
    assert belonging(log_of(own, name)) == set()


def test_gpus_are_not_given_twice(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "engines", Machine(has_gpu=True, cores=2))
    try:
        fleet.start(embedded(gpus=(0,)))
        with pytest.raises(StudioError, match="GPU 0 is in use by story"):
            fleet.start(embedded(gpus=(0,)))
        with pytest.raises(StudioError, match="the GPUs are in use by story"):
            fleet.start(embedded())
        fleet.start(embedded(gpus=(1,)))
    finally:
        fleet.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pipeline_parallel_size": 2}, "story: no pipeline runs on the CPU"),
        ({"quantisation": "fp8_per_tensor"}, "story: fp8_per_tensor does not run on the CPU"),
    ],
)
def test_what_the_processor_cannot_is_not_begun(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    fleet = Fleet(tmp_path / "engines", Machine(has_gpu=False, cores=2))
    spec = embedded(engine="vllm", **values)
    for begin in (fleet.placed, fleet.start):
        with pytest.raises(StudioError, match=message):
            begin(spec)
    assert fleet.snapshot() == []


def test_unknown_engine_and_closed_fleet(own: Fleet) -> None:
    with pytest.raises(StudioError, match='there is no engine "x"'):
        own.state("x")
    own.close()
    with pytest.raises(StudioError, match="the studio is stopping"):
        own.start(embedded())


def test_an_embedded_engine_does_not_sleep(shared: tuple[Fleet, str]) -> None:
    fleet, name = shared
    with pytest.raises(StudioError, match="it cannot sleep; vLLM can on GPUs"):
        fleet.sleep(name)
    with pytest.raises(StudioError, match="the engine is ready, not asleep"):
        fleet.wake(name)
    assert says(fleet, name, "story")


def test_load_is_measured(shared: tuple[Fleet, str]) -> None:
    fleet, name = shared
    with closing(fleet.engine(name)) as engine:
        engine.complete(QUESTION, Sampling(temperature=2.0, max_tokens=200))
    end = time.monotonic() + 60
    while not fleet.state(name).load.tokens_per_second and time.monotonic() < end:
        time.sleep(0.1)
    load = fleet.state(name).load
    assert load.tokens_per_second and load.running == 0
    assert load.memory_bytes and load.memory_bytes > 100e6


def test_the_state_for_the_page_holds_no_key(shared: tuple[Fleet, str]) -> None:
    fleet, name = shared
    state = fleet.state(name)
    assert state.key and state.url.startswith("http://127.0.0.1:")
    assert state.key not in str(state.as_data())


STUDIO = """
import sys, time
from pathlib import Path
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
fleet = Fleet(Path(sys.argv[1]))
wanted = [ModelSpec(model=sys.argv[2], engine="embedded", keep=keep) for keep in (False, True)]
names = [fleet.start(spec) for spec in wanted]
for name in names:
    assert fleet.wait(name, ("ready", "failed"), 90).phase == "ready"
    print(name, flush=True)
if sys.argv[3] == "end":
    fleet.close()
else:
    time.sleep(600)
"""


def studio(folder: Path, end: str) -> tuple["subprocess.Popen[str]", list[str]]:
    """Another studio with two engines, the second of them to be kept."""
    life = subprocess.Popen(
        [sys.executable, "-c", STUDIO, str(folder), str(DEMO / "story"), end],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert life.stdout is not None
    names = [life.stdout.readline().strip() for _ in range(2)]
    assert all(names)
    return life, names


def test_after_a_killed_studio_engines_are_adopted_or_gone(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    life, (tied, kept) = studio(folder, "wait")
    beside = Fleet(folder)
    assert all("left alone, it belongs to process" in line for line in beside.found)
    assert beside.snapshot() == [] and len(belonging(folder / kept / "log.txt")) == 2
    life.kill()
    life.communicate()
    end = time.monotonic() + 30
    while belonging(folder / tied / "log.txt"):
        assert time.monotonic() < end
        time.sleep(0.1)
    command = Fleet(folder, adopts=False)
    assert f"{kept}: left alone, it waits for the studio to adopt it" in command.found
    lent = command.borrow(embedded())
    assert lent is not None
    lent.engine.close()
    command.close()
    fleet = Fleet(folder)
    try:
        found = dict(line.split(": ", 1) for line in (*command.found, *fleet.found))
        assert found[tied] == "cleaned, nothing was running"
        assert found[kept].startswith("adopted")
        state = fleet.wait(kept, ("ready", *ENDED), 30)
        assert state.phase == "ready" and "adopted" in state.note
        assert says(fleet, kept, "story")
        fleet.switch(kept, str(DEMO / "roleplay"))
        assert fleet.wait(kept, ("ready", *ENDED), 30).spec.name == "roleplay"
        assert says(fleet, kept, "roleplay")
        fleet.stop(kept)
        assert fleet.wait(kept, ENDED, 30).phase == "stopped"
        assert belonging(folder / kept / "log.txt") == set()
    finally:
        fleet.close()
    assert not (folder / tied).exists()


def test_after_a_studio_that_ended_well_only_the_kept_engine_runs(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    life, (tied, kept) = studio(folder, "end")
    life.communicate(timeout=60)
    log = folder / kept / "log.txt"
    assert belonging(folder / tied / "log.txt") == set()
    assert len(belonging(log)) == 2
    tether, _ = process.found(folder / kept)
    os.kill(tether.pid, signal.SIGKILL)
    while tether.exit_code() is None:  # a signal takes its time on a busy machine
        time.sleep(0.02)
    fleet = Fleet(folder)
    assert fleet.snapshot() == []
    assert all("cleaned" in line for line in fleet.found)
    assert belonging(log) == set()
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_kept_engine_that_ends_as_it_is_adopted_shows_as_failed(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    life, (_, kept) = studio(folder, "end")
    life.communicate(timeout=60)
    log = folder / kept / "log.txt"
    tether, _ = process.found(folder / kept)
    os.kill(tether.pid, signal.SIGSTOP)  # it has not noticed yet
    (server,) = belonging(log) - {tether.pid}
    os.kill(server, signal.SIGKILL)
    fleet = Fleet(folder)
    try:
        assert [line for line in fleet.found if kept in line and "adopted" in line]
        os.kill(tether.pid, signal.SIGCONT)
        state = fleet.wait(kept, ("ready", *ENDED), 30)
        assert (state.phase, belonging(log)) == ("failed", set())
        assert state.problem
    finally:
        fleet.close()
