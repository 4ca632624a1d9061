"""A rater at work: the next two answers, the vote on them, and back again.

All that a sitting knows lies in two files, so that it goes on after a reload, on another day or on
another device, and so that many raters and processes can work on one trial:

    ratings.csv      the votes
    sittings.jsonl   what else happened: {when, rater, event, …} with the events joined (slot),
                     shown (item), skipped (item), undone (item, vote), revealed (item)

Only the item that was shown last can be voted on, once. A vote may be undone until something was
revealed to its rater; each new one says how often that happened, so that what was sent before an
undo, and comes in again, is not taken for a new vote.
"""

import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from studio import __version__
from studio.arena.prompts.prompt import Message
from studio.arena.rating.ratings import SILENT, Remarks, Verdict, Vote, append_votes, scores_json
from studio.arena.rating.sheet import SEALED_COLUMNS, Card, Sheet, open_sheet
from studio.arena.rating.sitting_log import EVENTS, log_of
from studio.arena.trials.design import Reveal, check_label
from studio.durable import append, json_line, locked, now
from studio.errors import StudioError

VERDICTS = {
    "a": Verdict.MODEL_A,
    "b": Verdict.MODEL_B,
    "tie": Verdict.TIE,
    "both_bad": Verdict.BOTH_BAD,
}
MOST_SKIPS = 2


@dataclass(frozen=True, slots=True)
class BlindItem:
    """What is shown to a rater: nothing in it depends on which model is on which side.

    `undone`: how often a vote on it was taken back. `number` of `total`: the place in the rater's
    list, from 1. `scores`: the names of what may be scored from 1 to 5.
    """

    item_id: str
    undone: int
    category: str
    system: str
    messages: tuple[Message, ...]
    a: str
    b: str
    number: int
    total: int
    scores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revealed:
    """Which model was which."""

    model_a: str
    model_b: str


class Sitting:
    """One rater's work on one trial."""

    def __init__(self, folder: Path, rater: str) -> None:
        """Sit down; raises StudioError for a name that cannot stand in a spreadsheet."""
        if problems := check_label(rater, "a rater's name"):
            raise StudioError(problems[0])
        self.folder, self.rater = folder, rater
        self._sheet: Sheet = open_sheet(folder)
        self._log = log_of(folder)
        with locked(folder):
            self._log.catch_up()
            joined = [e for e in self._log.events if e["event"] == "joined"]
            mine = [e for e in joined if e["rater"] == rater]
            slot = (self._sheet.first_slot + len(joined)) % len(self._sheet.slots)
            if not mine:
                self._note("joined", slot=slot)
        self._cards = {c.item: c for c in self._sheet.slots[mine[0]["slot"] if mine else slot]}

    def next(self) -> BlindItem | None:
        """The two answers to judge now; None when there is nothing left. Asking again gives the
        same again."""
        with locked(self.folder):
            self._log.catch_up()
            card = self._open_card()
            if card is None:
                return None
            self._note("shown", item=card.item, sync=False)
            return self._blind(card)

    def vote(
        self,
        item_id: str,
        verdict: str,
        remarks: Remarks = SILENT,
        undone: int | None = None,
    ) -> None:
        """Store a vote; returns when it is safe on disk.

        `verdict` is "a", "b", "tie" or "both_bad"; `undone`: as the item said, None if the vote
        cannot be an old one. Raises StudioError for a vote on anything but the item shown last, for
        a second vote, for an old one, and for values that cannot be.
        """
        if verdict not in VERDICTS:
            raise StudioError(f'"{verdict}" is no verdict; use one of {", ".join(VERDICTS)}')
        said: dict[str, Any] = {
            "recognised": remarks.recognised,
            "comment": remarks.comment,
            "scores": self._checked_scores(remarks.scores),
        }
        with locked(self.folder):
            card, shown = self._votable(item_id)
            if undone not in (None, len(self._undone(item_id))):
                raise StudioError("this vote was taken back; load the page again to vote anew")
            row = self._row(card, VERDICTS[verdict], shown)
            append_votes(self.folder, [Vote(**row, **said)])
            self._log.catch_up()

    def skip(self, item_id: str) -> None:
        """Put the item off to the end; skipped there again it is left out."""
        with locked(self.folder):
            self._votable(item_id)
            self._note("skipped", item=item_id)

    def undo(self) -> str:
        """Take the last vote back, so that its item comes again; returns the item's id."""
        with locked(self.folder):
            self._log.catch_up()
            mine = self._my_votes()
            if not mine:
                raise StudioError("there is no vote to undo")
            last = mine[-1]
            if self._revealed(last.item):
                raise StudioError("the models were revealed: votes can no longer be undone")
            self._note("undone", item=last.item, vote=last.vote)
            return last.item

    def reveal(self, item_id: str) -> Revealed:
        """Which model was which, if the design lets the rater know by now."""
        with locked(self.folder):
            self._log.catch_up()
            if item_id not in {vote.item for vote in self._my_votes()}:
                raise StudioError("an item is revealed after the vote on it")
            if self._sheet.reveal is Reveal.END and self._open_card() is not None:
                raise StudioError("this trial reveals its models when everything is rated")
            columns = self._sheet.behind.get(item_id)
            if columns is None:
                raise StudioError(
                    "a trial pack does not know its models: they are told by who made it"
                )
            self._note("revealed", item=item_id)
            return Revealed(columns["model_a"], columns["model_b"])

    def progress(self) -> tuple[int, int]:
        """How many items are done, and how many there are."""
        with locked(self.folder):
            self._log.catch_up()
            return len(self._cards) - len(self._pending()), len(self._cards)

    def _note(self, event: str, *, sync: bool = True, **about: object) -> None:
        record = {"when": now(), "rater": self.rater, "event": event, **about}
        append(self.folder / EVENTS, [json_line(record)], sync=sync)
        self._log.catch_up()

    def _my_events(self, *kinds: str) -> list[dict[str, Any]]:
        return [e for e in self._log.events_of(self.rater) if e["event"] in kinds]

    def _undone(self, item: str) -> list[str]:
        """The ids of the votes on an item that were taken back, the latest last."""
        return [e["vote"] for e in self._my_events("undone") if e["item"] == item]

    def _my_votes(self) -> list[Vote]:
        return [v for v in self._log.votes_of(self.rater) if v.item in self._cards]

    def _revealed(self, item: str) -> bool:
        revealed = self._my_events("revealed")
        if self._sheet.reveal is Reveal.EACH:
            return any(event["item"] == item for event in revealed)
        return bool(revealed)

    def _pending(self) -> list[Card]:
        """The cards still to be judged: undone ones, latest first, then the order of the sheet,
        then those that were skipped."""
        voted = {vote.item for vote in self._my_votes()}
        skips = Counter(event["item"] for event in self._my_events("skipped"))
        undone = {e["item"]: place for place, e in enumerate(self._my_events("undone"))}
        rest = [
            card
            for item, card in self._cards.items()
            if item not in voted and skips[item] < MOST_SKIPS
        ]
        return sorted(rest, key=lambda card: (-undone.get(card.item, -1), skips[card.item]))

    def _open_card(self) -> Card | None:
        """The card to show: the one shown last while it is open, else the first pending one whose
        prompt is not the last one's again."""
        pending = {card.item: card for card in self._pending()}
        acts = self._my_events("shown", "skipped", "undone")
        if acts and acts[-1]["event"] != "skipped" and acts[-1]["item"] in pending:
            return pending[acts[-1]["item"]]
        last = [self._cards[act["item"]].prompt for act in acts if act["event"] == "shown"][-1:]
        fresh = [card for card in pending.values() if card.prompt not in last]
        return next(iter([*fresh, *pending.values()]), None)

    def _votable(self, item_id: str) -> tuple[Card, str]:
        """The card of the item that is open to this rater, and when it was shown."""
        self._log.catch_up()
        if item_id not in self._cards:
            raise StudioError("this item is not yours to judge; load the page again")
        if item_id in {vote.item for vote in self._my_votes()}:
            raise StudioError("there is a vote on this item already; undo it to change it")
        shown = self._my_events("shown")
        if not shown or shown[-1]["item"] != item_id:
            raise StudioError("this item is not the one shown last; load the page again")
        return self._cards[item_id], str(shown[-1]["when"])

    def _row(self, card: Card, verdict: Verdict, shown: str) -> dict[str, Any]:
        """The columns of a vote that do not come from the rater."""
        prompt = self._sheet.prompts[card.prompt]
        undone = self._undone(card.item)
        moment = time.time()
        return {
            "winner": verdict,
            "judge": self.rater,
            "tstamp": round(moment, 3),
            "turn": sum(message.role == "user" for message in prompt.messages),
            "language": prompt.language,
            "anony": True,
            "vote": uuid.uuid4().hex,
            "supersedes": undone[-1] if undone else "",
            "trial": self._sheet.trial,
            "design_hash": self._sheet.hash,
            "item": card.item,
            "kind": card.kind,
            "pairing": card.pairing,
            "prompt": card.prompt,
            "category": prompt.category,
            "answer_a": card.answer_a,
            "answer_b": card.answer_b,
            "masked": card.masked,
            "seconds": round(max(moment - datetime.fromisoformat(shown).timestamp(), 0.0), 3),
            "side_seed": self._sheet.side_seed,
            "app_version": __version__,
            **self._sheet.behind.get(card.item, SEALED_COLUMNS),
        }

    def _checked_scores(self, scores: Mapping[str, int]) -> str:
        known = [f"{name}_{side}" for name in self._sheet.scores for side in ("a", "b")]
        for name, score in scores.items():
            if name not in known:
                raise StudioError(f'"{name}" is not scored here; scored are: {", ".join(known)}')
            if type(score) is not int or not 1 <= score <= 5:
                raise StudioError(f"{name} is {score!r}; use a whole number from 1 to 5")
        return scores_json(dict(scores))

    def _blind(self, card: Card) -> BlindItem:
        prompt = self._sheet.prompts[card.prompt]
        done = len(self._cards) - len(self._pending())
        return BlindItem(
            item_id=card.item,
            undone=len(self._undone(card.item)),
            category=prompt.category,
            system=prompt.system,
            messages=prompt.messages,
            a=card.a,
            b=card.b,
            number=done + 1,
            total=len(self._cards),
            scores=self._sheet.scores,
        )
