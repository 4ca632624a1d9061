"""The sheet raters fill in: what is shown, without what it is.

A sheet is made from a trial's own folder or from a trial pack. The cards hold texts and hashes; the
trial's folder knows the models behind them as well, a pack does not.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studio.arena.prompts.prompt import Prompt, prompt_from_data
from studio.arena.rating.ratings import SEALED
from studio.arena.trials import answers as answer_file
from studio.arena.trials.answers import Answer, AnswerKey, missing
from studio.arena.trials.design import Reveal
from studio.arena.trials.identity import mask_identity
from studio.arena.trials.schedule import Item
from studio.arena.trials.trial import AMENDMENTS, FIXED, Trial, open_trial
from studio.durable import json_records
from studio.errors import StudioError

PACK, PACK_CARDS, PACK_PROMPTS = "pack.json", "cards.jsonl", "prompts.jsonl"


@dataclass(frozen=True, slots=True)
class Card:
    """What a rater sees: two texts, masked, and what to call them in a vote."""

    item: str
    kind: str
    pairing: str
    prompt: str
    a: str
    b: str
    answer_a: str
    answer_b: str
    masked: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything a sitting needs.

    `slots`: for each rater slot its cards in order. `behind`: for each item the columns of a vote
    that name its models; empty in a pack. `first_slot`: the slot of the first rater here.
    """

    trial: str
    hash: str
    side_seed: str
    reveal: Reveal
    scores: tuple[str, ...]
    slots: tuple[tuple[Card, ...], ...]
    prompts: Mapping[str, Prompt]
    behind: Mapping[str, Mapping[str, str]]
    first_slot: int = 0


def open_sheet(folder: Path) -> Sheet:
    """The sheet of a trial's folder or of a pack; raises StudioError if answers are missing."""
    files = (FIXED, AMENDMENTS, answer_file.FILE, PACK, PACK_CARDS)
    return _opened(folder.resolve(), tuple(_state(folder / name) for name in files))


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, state: object) -> Sheet:
    if (folder / PACK).exists():
        return _from_pack(folder)
    return sheet_of(open_trial(folder))


def sheet_of(trial: Trial) -> Sheet:
    """The sheet of a trial whose answers are complete."""
    answers = trial.answers()
    if lacking := missing(trial.needed, answers):
        raise StudioError(
            f'the trial "{trial.design.name}" lacks {len(lacking)} of {len(trial.needed)} answers; '
            "generate them first: python -m studio generate"
        )
    slots = tuple(
        tuple(_card(item, answers, trial.names) for item in items) for items in trial.schedule
    )
    return Sheet(
        trial=trial.design.name,
        hash=trial.hash,
        side_seed=hashlib.sha256(trial.secret).hexdigest(),
        reveal=trial.design.reveal,
        scores=trial.design.scores,
        slots=slots,
        prompts={prompt.id: prompt for prompt in trial.prompts},
        behind={item.id: behind(item, answers) for item in trial.items.values()},
    )


def _card(item: Item, answers: Mapping[AnswerKey, Answer], names: list[str]) -> Card:
    left, right = answers[item.left], answers[item.right]
    # Space around an answer comes from a model's format, and would tell it.
    a, b = (mask_identity(answer.text.strip(), names) for answer in (left, right))
    return Card(
        item=item.id,
        kind=item.kind,
        pairing=item.pairing,
        prompt=item.prompt,
        a=a.text,
        b=b.text,
        answer_a=left.hash,
        answer_b=right.hash,
        masked=bool(a.claims or b.claims),
    )


def behind(item: Item, answers: Mapping[AnswerKey, Answer]) -> dict[str, str]:
    """The columns of a vote on an item that tell which models were where."""
    columns: dict[str, str] = {}
    for side, key in (("a", item.left), ("b", item.right)):
        answer = answers[key]
        columns |= {
            f"model_{side}": key.model,
            f"draw_{side}": str(key.draw),
            f"format_{side}": answer.prompt_format,
            f"quantisation_{side}": str(answer.identity.get("quantisation", "")),
            f"fingerprint_{side}": str(answer.identity.get("fingerprint", "")),
            f"recipe_{side}": str(answer.identity.get("recipe", "")),
        }
    left, right = (answers[key].sampling for key in (item.left, item.right))
    sampling = {k: v for k, v in left.items() if k != "seed" and right.get(k) == v}
    return columns | {"sampling": json.dumps(sampling, sort_keys=True)}


SEALED_COLUMNS = {
    f"{name}_{side}": SEALED
    for name in ("model", "draw", "format", "quantisation", "fingerprint", "recipe")
    for side in ("a", "b")
} | {"sampling": SEALED}


def sheet_as_pack(sheet: Sheet) -> dict[str, str]:
    """The files of a pack: names to texts. Nothing in them depends on which model is where but the
    answers' own texts."""
    about: dict[str, Any] = {
        "version": 1,
        "trial": sheet.trial,
        "hash": sheet.hash,
        "side_seed": sheet.side_seed,
        "scores": list(sheet.scores),
        "first_slot": sheet.first_slot,
    }
    cards = [
        json.dumps({"slot": slot, **asdict(card)}, ensure_ascii=False)
        for slot, items in enumerate(sheet.slots)
        for card in items
    ]
    prompts = [json.dumps(p.as_data(), ensure_ascii=False) for p in sheet.prompts.values()]
    return {
        PACK: json.dumps(about, indent=1) + "\n",
        PACK_CARDS: "\n".join([*cards, ""]),
        PACK_PROMPTS: "\n".join([*prompts, ""]),
    }


def _from_pack(folder: Path) -> Sheet:
    try:
        about = json.loads((folder / PACK).read_text(encoding="utf-8"))
        if about["version"] != 1:
            raise StudioError(f"{folder}: the pack was made by a newer studio; use that one")
        slots: dict[int, list[Card]] = {}
        for record in json_records(folder / PACK_CARDS):
            slots.setdefault(record.pop("slot"), []).append(Card(**record))
        prompts = [
            prompt_from_data(record, str(folder / PACK_PROMPTS), line)
            for line, record in enumerate(json_records(folder / PACK_PROMPTS), start=1)
        ]
        return Sheet(
            trial=about["trial"],
            hash=about["hash"],
            side_seed=about["side_seed"],
            reveal=Reveal.END,
            scores=tuple(about["scores"]),
            slots=tuple(tuple(slots[slot]) for slot in range(len(slots))),
            prompts={prompt.id: prompt for prompt in prompts},
            behind={},
            first_slot=about["first_slot"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudioError(
            f"{folder}: the trial pack is damaged ({error!r}); copy it again"
        ) from error
