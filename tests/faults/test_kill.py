"""kill -9 at any moment, then the same command: the same bytes as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.merge.journal import NAME as JOURNAL
from studio.merge.output import partial_folder
from tests.faults.merging import (
    ROOT,
    contents,
    environment,
    finished_shards,
    run_studio,
    start_studio,
)

KILLS = 25
OPTIONS = ("--shard-size", "2MB", "--json")


def merge_seconds(recipe: Path, out: Path) -> float:
    """How long an undisturbed merge takes from its first sign of life to its end."""
    with start_studio("merge", recipe, "--out", out, *OPTIONS) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "progress"
        started = time.monotonic()
        last = process.stdout.readlines()[-1]
    assert process.returncode == 0
    assert json.loads(last)["event"] == "done"
    return time.monotonic() - started


def killed(recipe: Path, out: Path, delay: float) -> bool:
    """Start the merge, kill it `delay` seconds after it began; whether the kill came in time."""
    with start_studio("merge", recipe, "--out", out, *OPTIONS) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "progress"
        time.sleep(delay)
        process.kill()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


@pytest.mark.timeout(300)
def test_25_kills_at_random_moments_change_nothing(tmp_path: Path, large_recipe: Path) -> None:
    seconds = merge_seconds(large_recipe, tmp_path / "reference")
    reference = contents(tmp_path / "reference")
    rng = random.Random(20)
    kills, finished, seen = 0, 0, set()
    out = tmp_path / "out"
    while kills < KILLS:
        # Short enough that most kills hit, and that work piles up over several of them.
        kills += killed(large_recipe, out, rng.uniform(0, 0.6 * seconds))
        seen.add(finished_shards(out))
        if out.exists():
            if (out / JOURNAL).exists():  # killed in the last step
                assert run_studio("merge", large_recipe, "--out", out, *OPTIONS).returncode == 0
            assert contents(out) == reference
            finished += 1
            shutil.rmtree(out)
    last = run_studio("merge", large_recipe, "--out", out, *OPTIONS)
    assert last.returncode == 0, last.stderr
    assert contents(out) == reference
    assert not partial_folder(out).exists()
    assert run_studio("verify", out).returncode == 0
    assert len(seen) >= 5, f"the kills came after {sorted(seen)} shards and {finished} whole merges"


def test_death_between_any_two_file_operations_changes_nothing(
    tmp_path: Path, recipe: Path
) -> None:
    """Every place where the merge touches its output is a place to die, and each is tried."""
    run = subprocess.run(
        [sys.executable, ROOT / "tests/faults/die_at_every_step.py", recipe, tmp_path],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(OMP_NUM_THREADS="1"),
    )
    assert run.returncode == 0, run.stderr
    steps = json.loads(run.stdout)
    assert len(steps) > 40, steps
    for operation in ("open", "os.truncate", "os.rename", "os.remove", "os.mkdir", "sync"):
        assert operation in steps
    reference = contents(tmp_path / "reference")
    for number, step in enumerate(steps):
        assert contents(tmp_path / f"out-{number}") == reference, f"died at {step}, the {number}th"
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]
