"""What a rater's page can ask for. Until a vote is stored, no answer here depends on which model
is on which side: texts, sides and ids come from the sitting, and this module adds nothing."""

import threading
from collections import OrderedDict
from pathlib import Path

from studio.arena.checks.constraints import check
from studio.arena.rating.ratings import Remarks
from studio.arena.rating.sheet import open_sheet
from studio.arena.rating.sitting import BlindItem, Sitting
from studio.arena.rating.sitting_log import SittingLog
from studio.ui.access import Answer, Request
from studio.ui.blind.raters import Raters
from studio.ui.blind.trials import Trials

MOST_SITTINGS = 200
REMARKS = ("recognised", "comment", "scores")


class RatingDesk:
    """Raters at work; every request carries a trial's name and, once joined, the rater's `code`."""

    def __init__(self, trials: Trials, raters: Raters) -> None:
        self._trials, self._raters = trials, raters
        self._sittings: OrderedDict[tuple[Path, str], Sitting] = OrderedDict()
        self._lock = threading.Lock()

    def join(self, request: Request) -> Answer:
        """Begin as a rater: a name, or none, gives a code that the browser keeps."""
        self._trials.for_rater(request)
        name, code = self._raters.join(request.get("name", ""))
        return {"rater": name, "code": code}

    def item(self, request: Request) -> Answer:
        """What is to be judged now."""
        sitting = self._sitting(request)
        return {"rater": sitting.rater, **self._next(sitting)}

    def vote(self, request: Request) -> Answer:
        """Store a vote; the answer brings the checks of what was judged, and the next item."""
        sitting = self._sitting(request)
        item, verdict = str(request.get("item")), str(request.get("verdict"))
        said = {name: request[name] for name in REMARKS if name in request}
        sitting.vote(item, verdict, Remarks(**said), request.get("undone") or 0)
        answer: Answer = {"stored": item, "checks": _checks(sitting.folder, item)}
        if open_sheet(sitting.folder).reveal == "each":
            answer["models"] = self._models(sitting, item)
        return answer | self._next(sitting)

    def skip(self, request: Request) -> Answer:
        """Put the item off to the end."""
        sitting = self._sitting(request)
        sitting.skip(str(request.get("item")))
        return self._next(sitting)

    def undo(self, request: Request) -> Answer:
        """Take the last vote back; its item comes again."""
        sitting = self._sitting(request)
        sitting.undo()
        return self._next(sitting)

    def reveal(self, request: Request) -> Answer:
        """All votes of this rater with the models behind them, when everything is rated."""
        sitting = self._sitting(request)
        log = SittingLog(sitting.folder)
        log.catch_up()
        votes = [vote for vote in log.standing if vote.judge == sitting.rater]
        return {
            "votes": [
                {
                    "prompt": vote.prompt,
                    "category": vote.category,
                    "winner": vote.winner.value,
                    **self._models(sitting, vote.item),
                }
                for vote in votes
            ]
        }

    def _models(self, sitting: Sitting, item: str) -> Answer:
        revealed = sitting.reveal(item)
        return {"a": revealed.model_a, "b": revealed.model_b}

    def _next(self, sitting: Sitting) -> Answer:
        item = sitting.next()
        done, total = sitting.progress()
        answer: Answer = {"item": _shown(item) if item else None, "done": done, "total": total}
        if item is None:
            answer["sealed"] = not open_sheet(sitting.folder).behind
        return answer

    def _sitting(self, request: Request) -> Sitting:
        folder = self._trials.for_rater(request)
        key = (folder, self._raters.who(request.get("code")))
        with self._lock:
            if key not in self._sittings:
                self._sittings[key] = Sitting(*key)
                if len(self._sittings) > MOST_SITTINGS:
                    self._sittings.popitem(last=False)
            self._sittings.move_to_end(key)
            return self._sittings[key]


def _shown(item: BlindItem) -> Answer:
    return {
        "id": item.item_id,
        "undone": item.undone,
        "category": item.category,
        "system": item.system,
        "messages": [{"role": m.role, "content": m.content} for m in item.messages],
        "a": item.a,
        "b": item.b,
        "number": item.number,
        "scores": list(item.scores),
    }


def _checks(folder: Path, item: str) -> Answer:
    """The automatic checks of both texts, as they were shown."""
    sheet = open_sheet(folder)
    card = next(card for slot in sheet.slots for card in slot if card.item == item)
    constraints = sheet.prompts[card.prompt].constraints
    return {
        side: [
            {"text": str(result.constraint), "passed": result.passed, "found": result.found}
            for result in check(constraints, text)
        ]
        for side, text in (("a", card.a), ("b", card.b))
    }
