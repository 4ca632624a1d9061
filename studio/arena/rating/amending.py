"""Changing the design of a trial under way: the little that may change, and never unseen.

An amendment is kept beside the trial with what was before, when, why, and after how many votes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.arena.rating.sitting_log import SittingLog
from studio.arena.trials.trial import AMENDABLE, AMENDMENTS, Trial, amended, open_trial
from studio.durable import append, json_line, locked, now
from studio.errors import StudioError


def amend(folder: Path, changes: Mapping[str, Any], why: str) -> Trial:
    """Change what may be changed, and keep what it was, why, when, and after how many votes.

    `changes`: some of exclusions, reveal, stop_early; of the exclusions those that change. Raises
    StudioError without a reason, and if everything is so already.
    """
    if not why.strip():
        raise StudioError("an amendment needs a reason; say why the design is changed")
    with locked(folder):
        trial = open_trial(folder)
        design = amended(trial.design, changes)
        before, after = trial.design.as_data(), design.as_data()
        changed = [key for key in AMENDABLE if before[key] != after[key]]
        if not changed:
            raise StudioError("nothing would change: the design says so already")
        log = SittingLog(folder)
        log.catch_up()
        record = {
            "when": now(),
            "why": why.strip(),
            "votes": len(log.standing),
            "was": {key: before[key] for key in changed},
            "changes": {key: after[key] for key in changed},
        }
        append(folder / AMENDMENTS, [json_line(record)])
    return open_trial(folder)


def amendment_words(amendment: Mapping[str, Any]) -> str:
    """What an amendment changed, as `name: before → after`."""
    was, became = (_flat(amendment[key]) for key in ("was", "changes"))
    return "; ".join(
        f"{name.replace('_', ' ')}: {json.dumps(was.get(name))} → {json.dumps(value)}"
        for name, value in became.items()
        if was.get(name) != value
    ).replace('"', "")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The exclusions beside the other values."""
    exclusions = {f"leave out {key}": value for key, value in values.get("exclusions", {}).items()}
    return {key: value for key, value in values.items() if key != "exclusions"} | exclusions
