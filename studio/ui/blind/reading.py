"""Results for the owner's page: numbers for charts and tables, the verdict in words, and files."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio.arena.charts import charts
from studio.arena.counted import ballots
from studio.arena.export import card_paragraph, votes_csv
from studio.arena.pack import pack_votes
from studio.arena.ratings import FILE
from studio.arena.report import html_report
from studio.arena.results import read_results
from studio.arena.sheet import PACK
from studio.arena.sitting import Sitting
from studio.arena.trial import Trial, open_trial
from studio.arena.verdict import verdict
from studio.errors import StudioError
from studio.ui.access import Access
from studio.ui.blind.raters import Raters
from studio.ui.blind.trials import Trials

Request = Mapping[str, Any]
Answer = dict[str, Any]


class ReadingDesk:
    """What the page of results can ask for."""

    def __init__(self, access: Access, trials: Trials, raters: Raters) -> None:
        self._access, self._trials, self._raters = access, trials, raters

    def results(self, request: Request) -> Answer:
        """Everything the report shows; or, where the reader's own rating is not done, only how
        much of it is left, until `anyway` is true: who knows the score rates differently."""
        trial = self._trial(request, "reading results")
        left = self._left(trial.folder, request.get("code"))
        if left and request.get("anyway") is not True:
            return {"left": left}
        found = read_results(trial)
        return {
            "left": left,
            "words": verdict(found),
            "card": card_paragraph(found),
            "results": found.as_data(),
            "charts": [asdict(chart) for chart in charts(found)],
        }

    def download(self, request: Request) -> Answer:
        """A file: "ratings" (every vote as stored; of a pack those that stand), "votes" (those that
        count), or "report"."""
        self._access.require_owner(request.get("token"), "downloading")
        folder, what = self._trials.path(request.get("trial")), request.get("what")
        if what == "ratings" and (folder / PACK).exists():
            return {"file": FILE, "text": pack_votes(folder), "type": "text/csv"}
        trial = self._trial(request, "downloading")
        name = trial.design.name
        if what == "ratings":
            path = trial.folder / FILE
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            return {"file": f"{name}-{FILE}", "text": text, "type": "text/csv"}
        every = ballots(trial)
        if what == "votes":
            return {"file": f"{name}-votes.csv", "text": votes_csv(every), "type": "text/csv"}
        if what == "report":
            text = html_report(read_results(trial), every)
            return {"file": f"{name}-report.html", "text": text, "type": "text/html"}
        raise StudioError(f"there is no file {str(what)[:40]!r} to download")

    def _trial(self, request: Request, what: str) -> Trial:
        self._access.require_owner(request.get("token"), what)
        folder = self._trials.path(request.get("trial"))
        if (folder / PACK).exists():
            raise StudioError(
                "a trial pack does not know its models: send its votes to whoever made it"
            )
        return open_trial(folder)

    def _left(self, folder: Path, code: object) -> int:
        """How many items the reader has still to rate; 0 for who has not begun."""
        if not code:
            return 0
        try:
            rater = self._raters.who(code)
        except StudioError:
            return 0  # a code of another studio: this reader rates nothing here
        if not (folder / FILE).exists():
            return 0
        done, total = Sitting(folder, rater).progress()
        return total - done if done else 0
