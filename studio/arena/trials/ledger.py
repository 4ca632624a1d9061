"""What a project has spent: its error budget, and its prompts.

Trying twenty merges that are no better and reporting the best one "finds" a winner half the time.
So a project has one budget for false claims, 5 %, and each trial that may claim something spends
its alpha of it when it is fixed; alpha 0 explores and may claim nothing. And a prompt that tuning
has seen is burnt: a verdict on it says how well the tuning fitted it. So a trial that explores does
not touch the sealed split unless it names it. All of this is kept for all trials of a data folder,
append-only:

    ledger.jsonl  {when, project, trial, design_hash, alpha, prompts: [hashes], why}
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.arena.prompts.prompt import Prompt
from studio.arena.trials.design import Design
from studio.durable import append, json_line, json_records, locked, now
from studio.errors import StudioError

FILE = "ledger.jsonl"
BUDGET = 0.05


@dataclass(frozen=True, slots=True)
class Account:
    """A project's state: trials that spent, what is left, and the hashes of burnt prompts."""

    trials: tuple[str, ...]
    left: float
    burnt: frozenset[str]


class Ledger:
    """The ledger of a data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / FILE

    def account(self, project: str) -> Account:
        """What the project has spent; prompts are burnt for all projects alike."""
        records = json_records(self._path)
        mine = [r for r in records if r["project"] == project and r["alpha"] > 0]
        return Account(
            trials=tuple(str(record["trial"]) for record in mine),
            left=max(BUDGET - sum(record["alpha"] for record in mine), 0.0),
            burnt=frozenset(prompt for record in records for prompt in record["prompts"]),
        )

    def enter(self, design: Design, prompts: Sequence[Prompt]) -> None:
        """Enter a trial that is about to be fixed; entering the same design again does nothing.

        Raises StudioError if the project's budget does not allow its alpha, if it would give a
        verdict on burnt prompts without saying so (`seen_prompts: true`), or if it would explore on
        sealed prompts without saying so (`sealed: true`).
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder):
            if any(r["design_hash"] == design.hash for r in json_records(self._path)):
                return
            account = self.account(design.project)
            told = (
                _over(design, account),
                _seen(design, prompts, account),
                _sealed(design, prompts),
            )
            if problems := [problem for some in told for problem in some]:
                raise StudioError.listing(f'the trial "{design.name}" cannot be fixed', problems)
            # A trial that explores is tuning: what it has seen is burnt from now on.
            self._add(design, prompts if design.alpha == 0 else (), design.alpha, "fixed")

    def burn(self, design: Design, prompts: Sequence[Prompt], why: str) -> None:
        """Enter that a trial's prompts have been seen, once for each reason."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder):
            known = {(r["project"], r["trial"], r["why"]) for r in json_records(self._path)}
            if (design.project, design.name, why) not in known:
                self._add(design, prompts, 0.0, why)

    def _add(self, design: Design, prompts: Sequence[Prompt], alpha: float, why: str) -> None:
        record = {
            "when": now(),
            "project": design.project,
            "trial": design.name,
            "design_hash": design.hash,
            "alpha": alpha,
            "prompts": [prompt_hash(prompt) for prompt in prompts],
            "why": why,
        }
        append(self._path, [json_line(record)])


def prompt_hash(prompt: Prompt) -> str:
    """16 hex digits of what a prompt asks, whatever it is called."""
    asked = [prompt.system, [[m.role, m.content] for m in prompt.messages]]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _over(design: Design, account: Account) -> list[str]:
    if design.alpha <= account.left + 1e-12:
        return []
    spent = ", ".join(account.trials)
    return [
        f'the project "{design.project}" has {account.left:.3g} of its error budget of {BUDGET} '
        f"left (spent on: {spent}), the trial wants {design.alpha:g}; use alpha: 0 to explore, a "
        "smaller alpha, or begin a new project with new prompts"
    ]


def _seen(design: Design, prompts: Sequence[Prompt], account: Account) -> list[str]:
    burnt = [prompt.id for prompt in prompts if prompt_hash(prompt) in account.burnt]
    if design.alpha == 0 or design.seen_prompts or not burnt:
        return []
    shown = ", ".join(burnt[:5]) + (", …" if len(burnt) > 5 else "")
    return [
        f"{len(burnt)} of {len(prompts)} prompts have been seen by tuning or by an earlier verdict "
        f"({shown}); use others, alpha: 0 to explore, or seen_prompts: true, which the report says"
    ]


def _sealed(design: Design, prompts: Sequence[Prompt]) -> list[str]:
    sealed = sum(prompt.sealed for prompt in prompts)
    if design.alpha > 0 or design.sealed is True or not sealed:
        return []
    return [
        f"{sealed} of {len(prompts)} prompts are sealed, which is for verdicts: exploring burns "
        "them; use sealed: false for the open ones, or sealed: true to spend the sealed ones"
    ]
