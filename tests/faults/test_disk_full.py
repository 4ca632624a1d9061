"""A disk that fills up during a merge: a clear error, and the same command resumes.

The disk is a small tmpfs in a mount namespace of its own: root may make one, and others where the
system allows user namespaces. Where it does not, tests/merge/test_run.py still shows the same with
writes that are made to fail.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.merging import contents, environment, run_studio

NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
# Preflight would refuse: here the room is taken by something else after it has looked.
MERGE_UNCHECKED = """
import sys
from pathlib import Path
from studio.errors import StudioError
from studio.merge.run import merge
from tests.faults.merging import plan_for
try:
    merge(plan_for(Path(sys.argv[1]), shard_bytes=2_000_000), Path(sys.argv[2]), lambda p: None)
except StudioError as error:
    sys.exit(f"error: {error}")
"""
SCRIPT = """
set -eu
mount -t tmpfs -o size="$FIRST" none "$DISK"
if "$PYTHON" -c "$MERGE" "$RECIPE" "$DISK/out"; then echo "it fitted" >&2; exit 9; fi
ls "$DISK"
wc -l < "$DISK/out.partial/merge-journal.jsonl"
if "$PYTHON" -m studio merge "$RECIPE" --out "$DISK/out" --shard-size 2MB; then exit 8; fi
mount -o remount,size=200m "$DISK"
"$PYTHON" -m studio merge "$RECIPE" --out "$DISK/out" --shard-size 2MB
cp -r "$DISK/out" "$COPY"
"""


def namespaces_allowed() -> bool:
    probe = [*NAMESPACE, "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(probe, capture_output=True).returncode
    )


@pytest.mark.skipif(not namespaces_allowed(), reason="mounting a small disk is not permitted here")
def test_a_full_disk_is_told_and_resumed_from(tmp_path: Path, large_recipe: Path) -> None:
    reference = run_studio(
        "merge", large_recipe, "--out", tmp_path / "reference", "--shard-size", "2MB"
    )
    assert reference.returncode == 0, reference.stderr
    (tmp_path / "disk").mkdir()
    run = subprocess.run(
        [*NAMESPACE, "sh", "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(
            PYTHON=sys.executable,
            MERGE=MERGE_UNCHECKED,
            RECIPE=str(large_recipe),
            DISK=str(tmp_path / "disk"),
            COPY=str(tmp_path / "copy"),
            FIRST="21m",
        ),
    )
    assert run.returncode == 0, run.stderr
    left, lines, out = run.stdout.split()
    assert left == "out.partial" and int(lines) > 4
    assert out == f"{tmp_path}/disk/out"
    told = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 2, run.stderr
    assert "the disk is full; free at least" in told[0] and "to resume" in told[0]
    assert "GB free, the result needs" in told[1], "preflight sees it before the second attempt"
    assert contents(tmp_path / "copy") == contents(tmp_path / "reference")
