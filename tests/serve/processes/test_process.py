"""Nothing outlives its time: real processes that do not want to end, and every way to be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.serve.processes.proc_table import belonging, is_alive, kill, shared_memory, started
from studio.serve.processes.process import EngineProcess, claim, found, free_port, new_place, sweep
from tests.test_architecture import ROOT

STAND_IN = Path(__file__).parents[1] / "stand_in.py"


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The log of an engine; whatever writes into it is gone after the test."""
    log = tmp_path / "log.txt"
    yield log
    sweep(log)


def tether(log: Path, mode: str, *options: str) -> "subprocess.Popen[bytes]":
    """A tether with a stand-in behind it, once both of its processes are up."""
    command = [sys.executable, "-m", "studio.serve.processes.tether", "--log", str(log), *options]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--", sys.executable, str(STAND_IN), mode],
            stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=ROOT,
        )  # fmt: skip
    until(lambda: "holds" in log.read_text())
    return process


def assert_nothing_left(log: Path) -> None:
    assert belonging(log) == set()
    held = [line.partition("holds ")[2] for line in log.read_text().splitlines() if "holds" in line]
    assert held and not any(Path(path).exists() for path in held)


@pytest.mark.parametrize("mode", ["polite", "stubborn", "half"])
def test_tether_ends_everything_when_asked(log: Path, mode: str) -> None:
    process = tether(log, mode, "--patience", "1")
    assert len(belonging(log)) == 3 and shared_memory(belonging(log))
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert_nothing_left(log)
    assert ("goodbye" in log.read_text()) == (mode != "stubborn")


def test_tether_ends_everything_when_its_owner_is_gone(log: Path) -> None:
    process = tether(log, "half", "--patience", "1")
    assert process.stdin is not None
    process.stdin.close()
    process.wait(20)
    assert_nothing_left(log)


def test_tether_that_is_to_keep_stays_when_its_owner_is_gone(log: Path) -> None:
    process = tether(log, "polite", "--keep")
    assert process.stdin is not None
    process.stdin.close()
    time.sleep(1)
    assert process.poll() is None
    process.terminate()
    process.wait(20)
    assert_nothing_left(log)


def test_tether_cleans_up_after_an_engine_that_died(log: Path) -> None:
    process = tether(log, "dies", "--patience", "1")
    assert process.wait(20) == 3
    assert_nothing_left(log)
    assert "ended by itself with code 3" in log.read_text()


def test_tether_cleans_up_after_an_engine_that_was_killed(log: Path) -> None:
    process = tether(log, "half", "--patience", "1")
    server = int(log.read_text().partition("server ")[2].split()[0])
    os.kill(server, signal.SIGKILL)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert_nothing_left(log)


def test_sweep_ends_what_a_killed_tether_left(log: Path) -> None:
    process = tether(log, "stubborn")
    process.kill()
    process.wait()
    until(lambda: len(belonging(log)) == 1)  # the server goes with its tether, the worker does not
    assert sweep(log) == 1
    assert_nothing_left(log)


OWNER = """
import os, sys, time
from pathlib import Path
from studio.serve.processes.process import EngineProcess, new_place
place = new_place(Path(sys.argv[1]), Path("/m"), "id", open_port=False)
command = [sys.executable, sys.argv[2], "half"]
EngineProcess.spawn(place, command, os.environ, {"spec": {}}, keep=False)
time.sleep(600)
"""


def test_nothing_is_left_when_the_studio_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder), str(STAND_IN)], cwd=ROOT)
    log = folder / "log.txt"
    until(lambda: log.exists() and "holds" in log.read_text())
    assert len(belonging(log)) == 3
    owner.kill()
    owner.wait()
    until(lambda: not belonging(log), 40)
    assert_nothing_left(log)
    process, note = found(folder)
    assert process.exit_code() == -1 and not is_alive(*note["owner"])


def test_place_is_private(tmp_path: Path) -> None:
    place = new_place(tmp_path / "e", Path("/m"), "id", open_port=False)
    assert place.socket is not None
    assert (tmp_path / "e").stat().st_mode & 0o777 == 0o700
    assert place.socket.parent.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(place.socket)) < 108
    assert len(place.key) >= 40
    deep = new_place(tmp_path / ("d" * 100), Path("/m"), "id", open_port=False)
    assert deep.socket is not None and len(os.fsencode(deep.socket)) < 108
    assert deep.socket.parent.stat().st_mode & 0o777 == 0o700
    open_one = new_place(tmp_path / ("p" * 60), Path("/m"), "id", open_port=True)
    assert open_one.port is not None and 1024 < open_one.port < 65536
    for each in (place, deep, open_one):
        assert len(os.fsencode(each.run / ("x" * 36))) < 108
        assert each.run.stat().st_mode & 0o777 == 0o700
        if each.run != each.folder:
            each.run.rmdir()
    assert free_port() != open_one.port


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"file/e: the engine's folder cannot be made \(Not a directory\); the studio must"
    with pytest.raises(StudioError, match=message):
        claim(tmp_path / "file" / "e", {})
    with pytest.raises(StudioError, match=message):
        new_place(tmp_path / "file" / "e", Path("/m"), "id", open_port=False)


def test_found_tells_of_a_folder_without_a_note(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="no note of an engine"):
        found(tmp_path)


def test_a_process_is_known_by_pid_and_start() -> None:
    here = started(os.getpid())
    assert here is not None and is_alive(os.getpid(), here)
    assert not is_alive(os.getpid(), here + 1)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child_start = started(child.pid)
    until(lambda: started(child.pid) is None)  # a zombie runs no more
    assert child_start is None or not is_alive(child.pid, child_start)
    child.wait()
    kill([child.pid])  # nothing there: no error


def test_engine_process_writes_down_what_runs(tmp_path: Path) -> None:
    place = new_place(tmp_path / "e", Path("/m"), "id", open_port=False)
    command = [sys.executable, str(STAND_IN), "polite"]
    process = EngineProcess.spawn(place, command, os.environ, {"spec": {"a": 1}}, keep=False)
    try:
        until(lambda: process.log.exists() and "holds" in process.log.read_text())
        again, note = found(place.folder)
        assert (again.pid, again.start, again.place) == (process.pid, process.start, place)
        assert note["spec"] == {"a": 1} and note["owner"] == [os.getpid(), started(os.getpid())]
        assert process.exit_code() is None and again.exit_code() is None
    finally:
        process.stop()
    assert process.exit_code() is not None and again.exit_code() == -1
    assert_nothing_left(process.log)
