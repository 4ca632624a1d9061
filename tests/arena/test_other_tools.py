"""The votes as the tools of the field read them, each in an environment of its own.

python3.11 -m venv /tmp/arena-rank && /tmp/arena-rank/bin/pip install arena-rank==0.1.1
STUDIO_ARENA_RANK=/tmp/arena-rank/bin/python make test

FastChat's analysis imports its models too, so that it wants torch and transformers:

python3.11 -m venv /tmp/fastchat && /tmp/fastchat/bin/pip install fschat==0.2.36 pandas plotly \
    scipy scikit-learn tqdm pytz polyglot torch transformers==4.57.1 accelerate
STUDIO_FASTCHAT=/tmp/fastchat/bin/python make test
"""

import json
import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.arena.outcome.export import votes_csv
from studio.arena.outcome.regression import Clusters, bradley_terry
from studio.arena.rating.counted import ballots
from studio.arena.rating.sitting import Sitting
from studio.arena.trials.design import Compare, Model
from tests.arena.sample_trials import made, rate_all

NAMES = ("alpha", "beta", "gamma")
TO_ELO = 400 / np.log(10)
ARENA_RANK = """
import json, sys
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset
votes = pd.read_csv(sys.argv[1])
data = PairDataset.from_pandas(votes)
model = BradleyTerry(data.n_competitors)
model.fit(data)
ratings = [float(rating) * 400 / 2.302585092994046 for rating in model.params["ratings"]]
print(json.dumps({"rows": len(votes), "ratings": dict(zip(data.competitors, ratings))}))
"""
FASTCHAT = """
import json, sys
import pandas as pd
from fastchat.serve.monitor.elo_analysis import report_elo_analysis_results
votes = pd.read_csv(sys.argv[1])
found = report_elo_analysis_results(votes, rating_system="bt", num_bootstrap=20)
table = found["leaderboard_table_df"]
told = {"rows": int(table["num_battles"].sum()) // 2, "ratings": dict(found["elo_rating_final"])}
print(json.dumps(told | {"online": found["elo_rating_online"]}))
"""
# arena-rank has no prior. FastChat counts every battle twice and lets scikit-learn add half the
# square of elo / 400: a normal prior with this deviation, in logits, for battles counted once.
TOOLS = {
    "STUDIO_ARENA_RANK": (ARENA_RANK, 1e4),
    "STUDIO_FASTCHAT": (FASTCHAT, np.sqrt(2) * np.log(10)),
}


def told_by(tool: str, file: Path) -> Mapping[str, Any]:
    if (python := os.environ.get(tool)) is None:
        pytest.skip(f"opt-in: set {tool}, see the module")
    command = [python, "-c", TOOLS[tool][0], str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("export", [False, True])
def test_other_tool_reads_the_votes_and_finds_the_same_strengths(
    tmp_path: Path, tool: str, export: bool
) -> None:
    """ratings.csv as it is (no measuring items, nothing undone here) and the export."""
    trial = made(
        tmp_path,
        40,
        models=tuple(Model(name, name) for name in NAMES),
        primary=("alpha", "beta"),
        compare=Compare.ALL,
        identical=0.0,
        repeats=0.0,
    )
    stream = random.Random(5)
    words = ["a", "a", "b", "tie"]
    rate_all(
        Sitting(tmp_path, "Ann"),
        lambda item: "a" if item.a.startswith("alpha") and stream.random() < 0.4
        else stream.choice(words),
    )  # fmt: skip
    every = ballots(trial)
    file = tmp_path / "ratings.csv"
    if export:
        file = tmp_path / "votes.csv"
        file.write_text(votes_csv(every))
    theirs = told_by(tool, file)
    assert theirs["rows"] == len(every) == 120
    battles = [(*b.item.pair, float(b.preference or 0.0)) for b in every]
    alone = Clusters(["Ann"] * 120, [str(n) for n in range(120)])
    ours = {each.model: each.elo for each in bradley_terry(battles, alone, TOOLS[tool][1])}
    centre = np.mean(list(theirs["ratings"].values()))
    for name in NAMES:
        assert theirs["ratings"][name] - centre == pytest.approx(ours[name], abs=0.2)
