"""The page for rating alone: what it loads, and a whole Space folder, as it is uploaded."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from studio.arena.rating.pack import pack_votes
from studio.arena.rating.ratings import HEADER
from studio.arena.rating.sitting import Sitting
from studio.arena.rating.space import write_space
from studio.errors import StudioError
from studio.settings import Settings
from studio.ui.blind.rating_page import build_rating
from tests.arena.sample_trials import MERGED, RIVAL, made, rate_all
from tests.e2e.conftest import free_port

HEAVY = ("torch", "vllm", "transformers", "safetensors", "numba", "xxhash", "tokenizers")
# A machine with the light requirements only: whoever asks for more is refused.
WITHOUT = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def space(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A running Space: its address and data folder."""
    trial = made(tmp_path / "home", 8)
    folder, data, light = (tmp_path / name for name in ("space", "data", "light"))
    write_space(trial, folder)
    light.mkdir()
    (light / "sitecustomize.py").write_text(WITHOUT)
    port = free_port()
    environment = {"STUDIO_PORT": str(port), "STUDIO_DATA": str(data), "PYTHONPATH": str(light)}
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=folder, env={**os.environ, **environment}
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, "the Space ended while starting"
            try:
                urlopen(url, timeout=5).close()
                break
            except URLError:
                time.sleep(0.2)
        yield url, data
    finally:
        process.terminate()
        process.wait(30)


def test_a_space_folder_runs_with_the_light_requirements(space: tuple[str, Path]) -> None:
    url, data = space
    page = urlopen(url).read().decode() + urlopen(f"{url}/config").read().decode()
    assert "blind-tab" in page and "recipe" not in page.partition("blind-tab")[0][-200:]
    for name in (MERGED, RIVAL, "models/"):
        assert f'"{name}"' not in page
    (folder,) = (data / "trials").iterdir()
    assert folder.name.startswith("pack-")
    request = Request(f"{url}/gradio_api/file=/etc/passwd")
    with pytest.raises(Exception, match="404"):
        urlopen(request)


def test_a_space_folder_holds_no_name_and_nothing_heavy(tmp_path: Path) -> None:
    trial = made(tmp_path / "home", 6)
    write_space(trial, tmp_path / "space", rater=1)
    files = [path for path in (tmp_path / "space").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    for path in files:
        assert trial.secret.hex() not in path.read_text(errors="replace")
    names = {path.relative_to(tmp_path / "space").as_posix() for path in files}
    assert {"app.py", "start.py", "README.md", "requirements.txt", "trial/pack.json"} <= names
    rooms = ("studio/merge/", "studio/weights/", "studio/ui/merge/", "studio/ui/serve/")
    assert not [name for name in names if name.startswith(rooms)]
    front = (tmp_path / "space" / "README.md").read_text()
    assert front.startswith("---\ntitle: trial\n") and "sdk_version: 6." in front
    with pytest.raises(StudioError, match="exists and is not empty"):
        write_space(trial, tmp_path / "space")


def test_votes_on_the_page_go_home_as_one_file(tmp_path: Path) -> None:
    trial = made(tmp_path / "home", 6)
    write_space(trial, tmp_path / "space")
    settings = Settings(data_dir=tmp_path / "data")
    build_rating(settings, tmp_path / "space" / "trial").close()
    (folder,) = (tmp_path / "data" / "trials").iterdir()
    assert json.loads((folder / "open.json").read_text()) == {"open": True}
    sitting = Sitting(folder, "Ann")
    rate_all(sitting, lambda item: "a")
    sitting.undo()
    lines = pack_votes(folder).splitlines()
    assert lines[0] == HEADER and len(lines) == 1 + 5
    with pytest.raises(StudioError, match="is not a trial pack"):
        build_rating(settings, tmp_path / "home")
