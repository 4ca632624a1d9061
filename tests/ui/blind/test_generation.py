"""The making of answers as a background process, with stand-ins for the command."""

import sys
import time
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.ui.background import Job
from studio.ui.blind.generation import Generations

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
    generations.start(folder, "embedded", 2)
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
    done = ended(started(DONE, tmp_path / "my-trial"))
    assert (done.state, done.name, done.done, done.total) == ("done", "my-trial", 2, 2)
    assert (done.talk, done.error) == (("a word beside the data",), "")


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


@pytest.mark.parametrize(("engine", "gpus"), [("--help", 1), ("vllm", 0), ("vllm", True)])
def test_generation_with_strange_wishes_is_refused(tmp_path: Path, engine: str, gpus: int) -> None:
    with pytest.raises(StudioError, match="choose one of the engines"):
        Generations(tmp_path).start(tmp_path, engine, gpus)
