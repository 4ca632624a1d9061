"""The memory of a whole merge process, torch included."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from tests.faults.merging import (
    environment,
    run_studio,
    studio_command,
    write_recipe,
    write_sources,
)

LIMIT = 500_000_000
# A process starts with the peak of the one it was forked from: the small one in between resets it.
MEASURE = """
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_merge_of_half_a_gigabyte_stays_below_the_limit(tmp_path: Path) -> None:
    torch.manual_seed(1)
    large = torch.rand(4096, 10240).to(torch.bfloat16)
    extra = {f"model.large{i}.weight": large.roll(i) for i in range(2)}
    models = write_sources(tmp_path, layers=2, extra=extra)
    read = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert read > LIMIT * 0.9
    recipe = write_recipe(tmp_path / "recipe.yaml", models)
    command = studio_command("merge", recipe, "--out", tmp_path / "out")
    run = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *command],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(),
    )
    assert run.returncode == 0, run.stderr
    peak = int(run.stdout.split()[-1])
    assert 20_000_000 < peak < LIMIT
    announced = json.loads(run_studio("check", recipe, "--json").stdout)["peak_memory"]
    assert peak <= announced < LIMIT
