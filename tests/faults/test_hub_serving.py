"""Models served by their Hub id: what is downloaded, how it is told, and how it ends."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint
from tests.faults.hub_double import Hub, serve
from tests.faults.merging import environment, run_studio
from tests.serve.engines import DEMO, QUESTION, greedy, text_of

STORY = "maker/story"
WEIGHTS = "model.safetensors"


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with a demo model, and the same weights in other files beside it."""
    folder = tmp_path / "remote"
    shutil.copytree(DEMO / "story", folder)
    for name in ("consolidated.safetensors", "model.fp32.safetensors", "pytorch_model.bin"):
        shutil.copy(folder / WEIGHTS, folder / name)
    (folder / "story.gguf").write_bytes(b"GGUF")
    with serve({STORY: folder}) as hub:
        yield hub


def large(hub: Hub) -> None:
    """Make the weights 64 MiB, which come slowly."""
    os.truncate(hub.repositories[STORY] / WEIGHTS, 64 << 20)
    hub.slow.add(WEIGHTS)


def quantise(hub: Hub) -> None:
    """Let its config say that the files are quantised."""
    path = hub.repositories[STORY] / "config.json"
    packed = {"quantization_config": {"quant_method": "gptq"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | packed))


def weights_given(hub: Hub) -> list[str]:
    names = [file.rpartition("/")[2] for file in hub.downloads()]
    return [name for name in names if name.endswith((".safetensors", ".bin", ".gguf"))]


def python(code: str, hub: Hub, home: Path, *arguments: str) -> str:
    """What a process of this code prints."""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(**hub.environment(home)),
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_model_is_served_by_its_id_and_only_its_own_weights_come(
    tmp_path: Path, remote: Hub
) -> None:
    remote.slow.add(WEIGHTS)
    asked = ("serve", STORY, "--engine", "embedded", "--prompt", QUESTION, "--max-tokens", "12")
    changes = remote.environment(tmp_path / "home") | {"STUDIO_DATA": str(tmp_path / "data")}
    run = run_studio(*asked, **changes)
    assert run.returncode == 0, run.stderr
    assert run.stdout == text_of(QUESTION, greedy("story", QUESTION, 12)) + "\n"
    size = f"{(DEMO / 'story' / WEIGHTS).stat().st_size / 1e9:.2f}"
    assert re.search(rf"^story: downloading 0\.0\d of {size} GB$", run.stderr, re.MULTILINE)
    assert weights_given(remote) == [WEIGHTS]

    remote.requests.clear()
    again = run_studio(*asked, **changes | {"HF_HUB_OFFLINE": "1"})
    assert again.stdout == run.stdout and "downloading" not in again.stderr
    assert remote.requests == []


DOWNLOAD = f"from studio.weights.download import download; print(download({STORY!r}))"


@pytest.mark.parametrize(("format", "shards"), [("safetensors", 3), ("bin", 1), ("bin", 3)])
def test_the_files_that_the_index_names_are_downloaded(
    tmp_path: Path, remote: Hub, format: str, shards: int
) -> None:
    folder = remote.repositories[STORY]
    shutil.rmtree(folder)
    write_checkpoint(folder, layers=3, format=format, shards=shards)
    mine = sorted(file.name for file in folder.glob(f"*.{format}"))
    shutil.copy(folder / mine[0], folder / f"model-of-old.{format}")
    path = Path(python(DOWNLOAD, remote, tmp_path / "home").strip())
    assert sorted(weights_given(remote)) == mine
    assert all((path / name).read_bytes() == (folder / name).read_bytes() for name in mine)


def test_quantised_files_are_downloaded_as_others_are(tmp_path: Path, remote: Hub) -> None:
    quantise(remote)
    code = (
        "from studio.serve.processes.model_files import model_files\n"
        f"print(model_files({STORY!r}).quantisation)"
    )
    assert python(code, remote, tmp_path / "home") == "gptq\n"
    assert weights_given(remote) == [WEIGHTS]


def test_files_that_the_engine_cannot_run_are_refused_before_any_weights_come(
    tmp_path: Path, remote: Hub
) -> None:
    quantise(remote)
    changes = remote.environment(tmp_path / "home") | {"STUDIO_DATA": str(tmp_path / "data")}
    run = run_studio("serve", STORY, "--engine", "embedded", "--prompt", "Once", **changes)
    assert run.returncode == 2
    assert "error: story: quantised (gptq); the embedded engine cannot run it" in run.stderr
    assert "config.json" in str(remote.downloads()) and weights_given(remote) == []


def test_a_model_that_cannot_be_switched_to_is_refused_before_any_weights_come(
    tmp_path: Path, remote: Hub
) -> None:
    quantise(remote)
    code = f"""
from studio.serve.processes.board import Board
from studio.serve.processes.exchange import Exchange
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState

board = Board(EngineState("e", ModelSpec(model="m"), phase="ready", can_switch=True))
Exchange(board, None, None, None, None).switch({STORY!r}, "")
print(board.wait(("ready",), 60).problem)
"""
    found = python(code, remote, tmp_path / "home")
    assert found == "story: quantised files cannot be loaded in place\n"
    assert "config.json" in str(remote.downloads()) and weights_given(remote) == []


def test_weights_that_the_hub_does_not_give_are_told_as_such(tmp_path: Path, remote: Hub) -> None:
    remote.refuse.add(WEIGHTS)
    changes = remote.environment(tmp_path / "home") | {"STUDIO_DATA": str(tmp_path / "data")}
    run = run_studio("serve", STORY, "--engine", "embedded", "--prompt", "Once", **changes)
    assert run.returncode == 2
    lack = f"error: {STORY}: its weights are not all on this machine, and the Hub did not give them"
    assert lack in run.stderr and "not a folder here" not in run.stderr


STOPPED = f"""
import sys, time
from pathlib import Path
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec

fleet = Fleet(Path(sys.argv[1]))
name = fleet.start(ModelSpec(model={STORY!r}, engine="embedded"))
while (state := fleet.state(name)).phase == "starting" and not state.progress.done:
    time.sleep(0.05)
print(state.phase, state.progress.phase, 0 < state.progress.done < state.progress.total)
print(state.progress.total)
fleet.stop(name)
print(fleet.wait(name, ("stopped", "failed")).phase)
"""


def test_a_start_tells_the_bytes_of_its_download_and_a_stop_ends_it(
    tmp_path: Path, remote: Hub
) -> None:
    large(remote)
    out = python(STOPPED, remote, tmp_path / "home", str(tmp_path / "engines")).splitlines()
    assert out == ["starting downloading True", str(64 << 20), "stopped"]
    assert remote.sent < 50 << 20
    (blobs,) = (tmp_path / "home").glob("hub/models--*/blobs")
    assert sum(file.stat().st_size for file in blobs.iterdir()) < 1_000_000


def test_too_little_room_is_told_before_any_weights_come(tmp_path: Path, remote: Hub) -> None:
    large(remote)
    code = f"""
import shutil
from collections import namedtuple
from studio.errors import StudioError
from studio.weights.download import download

shutil.disk_usage = lambda path: namedtuple("Usage", "free")(17_108_864)
try:
    download({STORY!r})
except StudioError as error:
    print(error)
"""
    found = python(code, remote, tmp_path / "home")
    assert f"has 0.02 GB free, the download of {STORY} needs 0.07 GB; free 0.05 GB" in found
    assert "set HF_HUB_CACHE to a folder on a larger disk" in found
    assert weights_given(remote) == []


def test_two_engines_of_one_model_download_it_once(tmp_path: Path, remote: Hub) -> None:
    code = f"""
from concurrent.futures import ThreadPoolExecutor
from studio.weights.download import download

with ThreadPoolExecutor(2) as pool:
    print(len(set(pool.map(download, [{STORY!r}] * 2))))
"""
    remote.slow.add(WEIGHTS)
    assert python(code, remote, tmp_path / "home") == "1\n"
    assert weights_given(remote) == [WEIGHTS]
