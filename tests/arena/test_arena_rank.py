"""The votes as another tool reads them: arena-rank, in an environment of its own.

python3.11 -m venv /tmp/arena-rank && /tmp/arena-rank/bin/pip install arena-rank==0.1.1
STUDIO_ARENA_RANK=/tmp/arena-rank/bin/python make test
"""

import json
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from studio.arena.counted import ballots
from studio.arena.design import Compare, Model
from studio.arena.export import votes_csv
from studio.arena.regression import Clusters, bradley_terry
from studio.arena.sitting import Sitting
from tests.arena.trials import made, rate_all

PYTHON = os.environ.get("STUDIO_ARENA_RANK")
RANK = """
import json, sys
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset
votes = pd.read_csv(sys.argv[1])
data = PairDataset.from_pandas(votes)
model = BradleyTerry(data.n_competitors)
model.fit(data)
ratings = [float(rating) for rating in model.params["ratings"]]
print(json.dumps({"rows": len(votes), "ratings": dict(zip(data.competitors, ratings))}))
"""


@pytest.mark.skipif(PYTHON is None, reason="opt-in: set STUDIO_ARENA_RANK, see the module")
@pytest.mark.parametrize("export", [False, True])
def test_arena_rank_reads_the_votes_and_finds_the_same_strengths(
    tmp_path: Path, export: bool
) -> None:
    """ratings.csv as it is (no measuring items, nothing undone here) and the export."""
    names = ("alpha", "beta", "gamma")
    trial = made(
        tmp_path,
        40,
        models=tuple(Model(name, name) for name in names),
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
    assert PYTHON is not None
    run = subprocess.run(
        [PYTHON, "-c", RANK, str(file)], capture_output=True, text=True, timeout=110
    )
    assert run.returncode == 0, run.stderr
    theirs = json.loads(run.stdout.splitlines()[-1])
    assert theirs["rows"] == len(every) == 120
    battles = [(*b.item.pair, float(b.preference or 0.0)) for b in every]
    alone = Clusters(["Ann"] * 120, [str(n) for n in range(120)])
    ours = {s.model: s.elo * np.log(10) / 400 for s in bradley_terry(battles, alone, 1e4)}
    centre = np.mean(list(theirs["ratings"].values()))
    for name in names:
        assert theirs["ratings"][name] - centre == pytest.approx(ours[name], abs=1e-3)
