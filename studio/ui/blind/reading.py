"""Results for the owner's page: numbers for charts and tables, the verdict in words, and files."""

from dataclasses import asdict
from pathlib import Path

from studio.arena.outcome.charts import charts
from studio.arena.outcome.export import card_paragraph, insert_in_card, votes_csv
from studio.arena.outcome.report import html_report
from studio.arena.outcome.results import read_results
from studio.arena.outcome.verdict import verdict
from studio.arena.rating.counted import ballots
from studio.arena.rating.pack import pack_votes
from studio.arena.rating.ratings import FILE
from studio.arena.rating.sheet import PACK
from studio.arena.rating.sitting import Sitting
from studio.arena.trials.trial import Trial
from studio.errors import StudioError
from studio.ui.access import Access, Answer, Request
from studio.ui.blind.raters import Raters
from studio.ui.blind.trials import Trials
from studio.ui.finished import results_in


class ReadingDesk:
    """What the page of results can ask for."""

    def __init__(self, access: Access, trials: Trials, raters: Raters, merges: Path) -> None:
        self._access, self._trials, self._raters, self._merges = access, trials, raters, merges

    def results(self, request: Request) -> Answer:
        """Everything the report shows; or, where the reader's own rating is not done, only how
        much of it is left, until `anyway` is true: who knows the score rates differently."""
        self._access.require_owner(request, "reading results")
        trial = self._trials.trial(request.get("trial"))
        left = self._left(trial.folder, request.get("code"))
        if left and request.get("anyway") is not True:
            return {"left": left}
        found = read_results(trial)
        return {
            "left": left,
            "words": verdict(found),
            "card": card_paragraph(found),
            "results": found.as_data(),
            "merges": list(self._compared(trial)),
            "charts": [asdict(chart) for chart in charts(found)],
        }

    def download(self, request: Request) -> Answer:
        """A file: "ratings" (every vote as stored; of a pack those that stand), "votes" (those that
        count), or "report"."""
        self._access.require_owner(request, "downloading")
        folder, what = self._trials.path(request.get("trial")), request.get("what")
        if what == "ratings" and (folder / PACK).exists():
            return {"file": FILE, "text": pack_votes(folder), "type": "text/csv"}
        trial = self._trials.trial(request.get("trial"))
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

    def into_card(self, request: Request) -> Answer:
        """Put the result's paragraph into the model card of a finished merge that was compared."""
        self._access.require_owner(request, "writing into a model card")
        trial, name = self._trials.trial(request.get("trial")), request.get("merge")
        compared = self._compared(trial)
        if name not in compared:
            raise StudioError(f"the trial compared no finished merge named {str(name)[:80]!r}")
        insert_in_card(read_results(trial), compared[str(name)])
        return {"merge": name}

    def _compared(self, trial: Trial) -> dict[str, Path]:
        """The folders of those finished merges that the trial compared, by name."""
        sources = {Path(model.source).resolve() for model in trial.design.used_models}
        found = {merge["name"]: Path(merge["path"]) for merge in results_in(self._merges)}
        return {name: path for name, path in found.items() if path.resolve() in sources}

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
