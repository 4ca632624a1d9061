"""Many raters at one running studio at once, and a studio that is killed under their hands."""

import csv
import itertools
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from studio.arena.rating.counted import ballots
from studio.arena.trials.trial import open_trial
from tests.e2e.blind_client import BlindClient
from tests.e2e.conftest import Visited
from tests.ui.canned import canned_trial, prompts

CLIENTS, VOTES = 32, 100


def rows_of(studio: Visited, trial: str) -> list[dict[str, str]]:
    with (studio.data / "trials" / trial / "ratings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def vote_all(studio: Visited, trial: str, stored: list[tuple[str, str]]) -> None:
    """Vote until nothing is left; note rater and item of each vote that was acknowledged."""
    client = BlindClient(studio.url, trial)
    answer, _ = client.ask("item")
    while item := answer["item"]:
        verdict = random.choice(("a", "b", "tie", "both_bad"))
        answer, _ = client.ask("vote", item=item["id"], verdict=verdict)
        assert "error" not in answer, answer
        stored.append((client.rater, answer["stored"]))
    client.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_clients_lose_no_vote_and_double_none(start: Callable[..., Visited]) -> None:
    studio = start("app.py")
    canned_trial(
        studio.data / "trials", "many", asked=prompts(VOTES), draws=6,
        votes_per_prompt=CLIENTS, raters=CLIENTS,
    )  # fmt: skip
    stored: list[list[tuple[str, str]]] = [[] for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(vote_all, studio, "many", mine) for mine in stored]:
            done.result()
    told = Counter(itertools.chain(*stored))
    assert len(told) == CLIENTS * VOTES and set(told.values()) == {1}
    assert Counter((row["judge"], row["item"]) for row in rows_of(studio, "many")) == told
    assert len(ballots(open_trial(studio.data / "trials" / "many"))) == CLIENTS * VOTES


@pytest.mark.timeout(240)
def test_killed_studio_keeps_every_vote_it_acknowledged(start: Callable[..., Visited]) -> None:
    studio = start("app.py")
    canned_trial(
        studio.data / "trials", "killed", asked=prompts(60), draws=4, votes_per_prompt=8, raters=8
    )
    stored: list[tuple[str, str]] = []
    enough = threading.Event()

    def vote_until_killed() -> None:
        with pytest.raises(httpx.HTTPError):
            vote_all(studio, "killed", stored)

    def kill() -> None:
        while len(stored) < 40:
            if enough.wait(0.01):
                return
        os.kill(studio.process.pid, signal.SIGKILL)

    with ThreadPoolExecutor(9) as pool:
        killer = pool.submit(kill)
        for done in [pool.submit(vote_until_killed) for _ in range(8)]:
            done.result()
        enough.set()
        killer.result()
    studio.process.wait(30)
    assert len(stored) >= 40
    counted = Counter((row["judge"], row["item"]) for row in rows_of(studio, "killed"))
    assert set(counted.values()) == {1} and set(stored) <= set(counted)
    assert len(ballots(open_trial(studio.data / "trials" / "killed"))) == len(counted)
