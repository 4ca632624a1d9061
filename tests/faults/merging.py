"""Toy merges for the tests that break them: sources, recipes, real processes, and what came out."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.merge.journal import NAME as JOURNAL
from studio.merge.output import partial_folder
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.checkpoints import write_checkpoint

ROOT = Path(__file__).parents[2]
REPORT = "merge-report.json"
# The house recipe's shape: two components that share a source, then both in equal parts.
HOUSE = """
name: one
merge_method: slerp
base_model: {0}
models: [{{model: {0}}}, {{model: {1}}}]
parameters: {{t: [0.25, 0.3, 0.5]}}
---
name: two
merge_method: slerp
base_model: {1}
models: [{{model: {1}}}, {{model: {2}}}]
parameters: {{t: [0.4, 0.3, 0.25]}}
---
merge_method: slerp
base_model: one
models: [{{model: one}}, {{model: two}}]
parameters: {{t: {t}}}
dtype: bfloat16
"""


def write_sources(folder: Path, **options: Any) -> list[Path]:
    """Three related toy models: `a` and two fine-tunes of it."""
    near = [None, (1, 0.3), (1, 0.4)]
    return [
        write_checkpoint(folder / name, seed=seed, near=near[seed - 1], **options)
        for seed, name in enumerate("abc", 1)
    ]


def write_recipe(path: Path, models: Sequence[Path | str], t: float = 0.5) -> Path:
    """The house recipe over three models, as a file."""
    path.write_text(HOUSE.format(*models, t=t))
    return path


def plan_for(recipe: Path, out: Path | None = None, **options: Any) -> Plan:
    """The checked plan of a recipe file."""
    return check(load_recipe(recipe.read_text(), recipe.name), Options(**options), out)


def contents(folder: Path) -> dict[str, str]:
    """Every file of a finished merge by its hash; of the report all but the seconds it took."""
    found = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        if path.name == REPORT:
            report = json.loads(data)
            assert report.pop("seconds") >= 0
            data = json.dumps(report).encode()
        found[path.name] = hashlib.sha256(data).hexdigest()
    return found


def finished_shards(out: Path) -> int:
    """How many shards the journal of an unfinished merge holds."""
    journal = partial_folder(out) / JOURNAL
    return max(journal.read_bytes().count(b"\n") - 1, 0) if journal.exists() else 0


def studio_command(*arguments: str | Path) -> list[str]:
    """The command line of a real studio process."""
    return [sys.executable, "-m", "studio", *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """The environment for a process that runs outside the repository."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | changes


def run_studio(*arguments: str | Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run the studio as a real process to its end; `changes` go into its environment."""
    return subprocess.run(
        studio_command(*arguments),
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(**changes),
        stdin=subprocess.DEVNULL,
    )


def start_studio(*arguments: str | Path, **changes: str) -> "subprocess.Popen[str]":
    """Start the studio as a real process with pipes for all three streams."""
    return subprocess.Popen(
        studio_command(*arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**changes),
    )
