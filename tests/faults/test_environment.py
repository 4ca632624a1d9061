"""Machines that are not as one would like them: nothing may be written but the output."""

import subprocess
import sys
from pathlib import Path

from tests.faults.merging import contents, environment, run_studio

WITHOUT_A_CACHE = """
import sys
from numba.core import caching
caching.CacheImpl._locator_classes = []  # as where no folder may be written to
from studio.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_merge_needs_no_folder_to_keep_compiled_loops(tmp_path: Path, recipe: Path) -> None:
    command = ("merge", recipe, "--out")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_CACHE, *command, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(),
    )
    assert run.returncode == 0, run.stderr
    assert run_studio(*command, tmp_path / "reference").returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_a_merge_leaves_nothing_beside_its_output(
    tmp_path: Path, recipe: Path, models: list[Path]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in models[0].parent.rglob("*")}
    run = run_studio("merge", recipe, "--out", tmp_path / "out", TMPDIR=str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert {p: p.stat().st_mtime_ns for p in models[0].parent.rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"models", "recipe.yaml", "out"}
