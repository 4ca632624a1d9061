"""Machines that are not as one would like them: nothing may be written but the output."""

from pathlib import Path

from tests.faults.merging import run_studio


def test_a_merge_leaves_nothing_beside_its_output(
    tmp_path: Path, recipe: Path, models: list[Path]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in models[0].parent.rglob("*")}
    run = run_studio("merge", recipe, "--out", tmp_path / "out", TMPDIR=str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert {p: p.stat().st_mtime_ns for p in models[0].parent.rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"models", "recipe.yaml", "out"}
