"""What rating takes, told before a trial is fixed."""

import pytest

from studio.arena.trials.workload import workload
from tests.arena.sample_trials import design, prompts


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {},
            "The rater sees 22 pairs: 20 that count and, to measure the rater, 1 shown again with "
            "sides swapped and 1 with one answer on both sides.",
        ),
        (
            {"raters": 2, "repeats": 0.0, "identical": 0.0},
            "Each of 2 raters sees up to 10 pairs: all count, none measures the rater. No pair is "
            "judged by two raters, so their agreement will not show: plan more votes per prompt "
            "for that, and prompts shared by raters.",
        ),
        (
            {"raters": 2, "votes_per_prompt": 2, "repeats": 0.0, "identical": 0.0},
            "Each of 2 raters sees up to 20 pairs: all count, none measures the rater. 5 pairs are "
            "judged by several raters: their agreement will show.",
        ),
    ],
)
def test_workload_in_words(changes: dict[str, float], told: str) -> None:
    assert workload(design(**changes), prompts(20)) == told
