"""A folder to upload as a Hugging Face Space that lets people rate one trial, and nothing else."""

import shutil
from pathlib import Path

from studio.arena.rating.pack import pack_files
from studio.arena.trials.trial import Trial
from studio.errors import StudioError

ROOT = Path(__file__).parents[3]
REQUIREMENTS = "requirements-rating.txt"
TRIAL = "trial"
# What the rating page does without: it neither merges nor serves. Of serve it needs the sampling.
LEFT_OUT = {"merge", "serve", "weights", "cli", "ui/app.py", "ui/merge", "ui/serve"}
ALSO = ("serve/__init__.py", "serve/sampling.py")
_README = """\
---
title: {title}
emoji: ⚖️
colorFrom: indigo
colorTo: green
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
pinned: false
short_description: Which answer is better? A blind comparison
---

Two answers to one prompt, no names: say which is better. The models behind them are not in this
Space, so nothing here can tell them.

Votes are written to `data/trials`. A Space's own disk is lost when it restarts: attach a storage
bucket at `/data` and set `STUDIO_DATA=/data`, or download the votes before. Whoever made the trial
takes them over with `python -m studio collect`.
"""
_APP = '''\
"""The Space's entry: rate the trial that lies beside this file."""

import os
import sys
from pathlib import Path

os.environ.setdefault("STUDIO_RATE", str(Path(__file__).parent / "trial"))

from start import main  # noqa: E402 - after the setting

sys.exit(main())
'''


def write_space(trial: Trial, folder: Path, rater: int = 1) -> None:
    """Write the folder; raises StudioError if there is something in it already.

    It holds the pack, the page for rating with the part of the studio it needs, and the light
    requirements: no weights, no torch, no model's name.
    """
    if folder.exists() and any(folder.iterdir()):
        raise StudioError(f"{folder} exists and is not empty; choose another folder")
    files = pack_files(trial, rater)
    requirements = (ROOT / REQUIREMENTS).read_text()
    try:
        (folder / TRIAL).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / TRIAL / name).write_text(text)
        shutil.copytree(ROOT / "studio", folder / "studio", ignore=_left_out)
        for name in ALSO:
            (folder / "studio" / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / "studio" / name, folder / "studio" / name)
        shutil.copy(ROOT / "app.py", folder / "start.py")
        (folder / "requirements.txt").write_text(requirements)
        (folder / "app.py").write_text(_APP)
        readme = _README.format(title=trial.design.name, gradio=_pinned(requirements, "gradio"))
        (folder / "README.md").write_text(readme)
    except OSError as error:
        raise StudioError(f"{folder}: cannot be written ({error.strerror})") from error


def _pinned(requirements: str, package: str) -> str:
    """The version that the requirements pin."""
    line = next(line for line in requirements.splitlines() if line.startswith(f"{package}=="))
    return line.partition("==")[2].strip()


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Which of a folder's entries stay behind: caches, and the rooms that rating does without."""
    here = Path(folder).relative_to(ROOT / "studio")
    left = {name for name in names if (here / name).as_posix() in LEFT_OUT}
    return left | {"__pycache__"}
