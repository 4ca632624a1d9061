"""A trial's folder: what is fixed in it, and what is kept apart from raters.

design.json       the design, its hash, the hash of the prompts and of the secret seed
prompts.jsonl     the prompts as they were when the trial was fixed
key.json          the secret seed of sides, order and ids: the owner's, never in a pack
answers.jsonl     what the models answered (answers.py)
amendments.jsonl  what was changed later, when and why (amending.py)
ratings.csv, sittings.jsonl, raters.jsonl   see ratings.py and sitting.py
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from studio import __version__
from studio.arena.prompts.prompt import Prompt, prompt_from_data
from studio.arena.trials import answers as answer_file
from studio.arena.trials.answers import Answer, AnswerKey, read_answers
from studio.arena.trials.design import Design
from studio.arena.trials.design_yaml import design_from_data
from studio.arena.trials.ledger import Ledger
from studio.arena.trials.schedule import Item, schedule
from studio.durable import json_line, json_records, locked, now, write_whole
from studio.errors import StudioError, nearest

FIXED, PROMPTS, KEY, AMENDMENTS = "design.json", "prompts.jsonl", "key.json", "amendments.jsonl"
AMENDABLE = ("exclusions", "reveal", "stop_early")


@dataclass(frozen=True)
class Trial:
    """A trial whose design is fixed.

    `design`: as fixed, with what the amendments changed. `hash`: of the design as fixed, the
    prompts and the secret; every vote carries it. `amendments`: the records, oldest first.
    """

    folder: Path
    design: Design
    hash: str
    prompts: tuple[Prompt, ...]
    amendments: tuple[Mapping[str, Any], ...]
    secret: bytes

    @cached_property
    def schedule(self) -> list[list[Item]]:
        """For each rater slot its items, in order."""
        return schedule(self.design, self.prompts, self.secret)

    @cached_property
    def items(self) -> dict[str, Item]:
        """Every item of the trial by its id."""
        return {item.id: item for slot in self.schedule for item in slot}

    @property
    def needed(self) -> list[AnswerKey]:
        """Every answer the design asks for, one model after the other."""
        return [
            AnswerKey(model.label, prompt.id, draw)
            for model in self.design.used_models
            for prompt in self.prompts
            for draw in range(self.design.draws)
        ]

    def answers(self) -> dict[AnswerKey, Answer]:
        """The answers that are there."""
        return read_answers(self.folder / answer_file.FILE)

    @property
    def names(self) -> list[str]:
        """Everything that names a model of the trial: what a rater must not read."""
        return [name for model in self.design.models for name in (model.label, model.source)]


def begin(trials: Path, design: Design, prompts: Sequence[Prompt]) -> Trial:
    """Fix a design in `trials`, the folder of all trials, and enter it in the ledger there.

    Raises StudioError if the project's error budget or burnt prompts are in the way (ledger.py),
    or if another design is fixed under this name. A design that cannot be fixed spends nothing.
    """
    _check_order(design, prompts)
    if not (trials / design.name / FIXED).exists():
        Ledger(trials).enter(design, prompts)
    return fix(trials / design.name, design, prompts)


def fix(folder: Path, design: Design, prompts: Sequence[Prompt]) -> Trial:
    """Fix a design in a new folder; the same design again opens what is there.

    Raises StudioError if another design is fixed there.
    """
    _check_order(design, prompts)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not (folder / FIXED).exists():
            _write(folder, design, prompts)
    trial = open_trial(folder)
    fixed = json.loads((folder / FIXED).read_text())
    if fixed["design_hash"] != design.hash or fixed["prompts_hash"] != _prompts_hash(prompts):
        what = "design" if fixed["design_hash"] != design.hash else "prompts"
        raise StudioError(
            f"{folder}: the trial there was fixed on {fixed['fixed'][:10]} with another {what}; "
            "give this one another name, or amend that one"
        )
    return trial


def _check_order(design: Design, prompts: Sequence[Prompt]) -> None:
    """Raise StudioError if no order of the prompts can be shown to raters."""
    if not prompts:
        raise StudioError(f'the trial "{design.name}" has no prompts: its choice leaves none')
    schedule(design, prompts, b"a trial run: tells at once what cannot be ordered")


def _write(folder: Path, design: Design, prompts: Sequence[Prompt]) -> None:
    secret = secrets.token_bytes(32)
    lines = [json_line(prompt.as_data()) for prompt in prompts]
    write_whole(folder / PROMPTS, "\n".join([*lines, ""]))
    write_whole(folder / KEY, json.dumps({"secret": secret.hex()}) + "\n")
    (folder / KEY).chmod(0o600)
    fixed = {
        "version": 1,
        "design": design.as_data(),
        "design_hash": design.hash,
        "prompts_hash": _prompts_hash(prompts),
        "secret_hash": hashlib.sha256(secret).hexdigest(),
        "fixed": now(),
        "app_version": __version__,
    }
    write_whole(folder / FIXED, json.dumps(fixed, ensure_ascii=False, indent=1) + "\n")


def _prompts_hash(prompts: Sequence[Prompt]) -> str:
    lines = [json.dumps(prompt.as_data(), sort_keys=True) for prompt in prompts]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def open_trial(folder: Path) -> Trial:
    """The trial of a folder; raises StudioError if it is none, or if what was fixed has changed."""
    fixed = _read_json(folder / FIXED)
    if fixed.get("version") != 1:
        raise StudioError(f"{folder / FIXED}: written by a newer studio; use that one")
    design = design_from_data(fixed["design"])
    prompts = tuple(
        prompt_from_data(record, str(folder / PROMPTS), line)
        for line, record in enumerate(json_records(folder / PROMPTS), start=1)
    )
    secret = bytes.fromhex(str(_read_json(folder / KEY)["secret"]))
    found = (design.hash, _prompts_hash(prompts), hashlib.sha256(secret).hexdigest())
    wanted = [str(fixed[key]) for key in ("design_hash", "prompts_hash", "secret_hash")]
    for name, value, expected in zip((FIXED, PROMPTS, KEY), found, wanted, strict=True):
        if value != expected:
            raise StudioError(f"{folder / name}: was changed after the trial was fixed; restore it")
    amendments = json_records(folder / AMENDMENTS)
    for amendment in amendments:
        design = amended(design, amendment["changes"])
    whole = hashlib.sha256("".join(wanted).encode()).hexdigest()
    return Trial(folder, design, whole, prompts, tuple(amendments), secret)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudioError(f"{path.parent}: is not a trial: there is no {path.name}") from None
    except (OSError, ValueError) as error:
        raise StudioError(f"{path}: cannot be read; restore a copy") from error
    return dict(data)


def amended(design: Design, changes: Mapping[str, Any]) -> Design:
    """The design with changes made to it; raises StudioError for what may not be changed."""
    for key in changes:
        if key not in AMENDABLE:
            raise StudioError(
                f"{key}: cannot be amended{nearest(key, AMENDABLE)}; start another trial"
            )
    return replace(design, **_typed(design, changes))


def _typed(design: Design, changes: Mapping[str, Any]) -> dict[str, Any]:
    data, wanted = design.as_data(), dict(changes)
    if isinstance(some := wanted.get("exclusions"), dict):
        wanted["exclusions"] = data["exclusions"] | some
    checked = design_from_data({**data, **wanted})
    return {key: getattr(checked, key) for key in changes}
