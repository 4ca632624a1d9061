"""Runs mergekit on many recipes; a program for mergekit's own environment.

    python mergekit_runs.py JOBS.json

JOBS.json: a list of {"recipe": file, "out": folder, "intermediate": folder}. One process for all
of them, because importing mergekit takes longer than all the merges.
"""

import json
import sys
from pathlib import Path

from mergekit.scripts.multimerge import main


def run(jobs: list[dict[str, str]]) -> None:
    for job in jobs:
        folders = ["--out-path", job["out"], "-I", job["intermediate"]]
        try:
            main([job["recipe"], *folders, "--no-lazy", "--quiet"], standalone_mode=False)
        except Exception as error:
            raise RuntimeError(f"mergekit failed on {job['recipe']}") from error


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
