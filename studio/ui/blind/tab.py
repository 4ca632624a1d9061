"""The Blind tab: trials to set up, to rate and to read."""

from studio.arena.rating.amending import amend
from studio.arena.trials.ledger import Ledger
from studio.errors import StudioError
from studio.ui.access import Access, Answer, Handler, Request
from studio.ui.blind.form import Form
from studio.ui.blind.generation import Generations, Wish
from studio.ui.blind.rating import RatingDesk
from studio.ui.blind.reading import ReadingDesk
from studio.ui.blind.trials import Trials, design_as_data, standing_as_data
from studio.ui.launch import part

SCRIPTS = (
    "dom.js", "plot.js", "blind_text.js", "blind_rate.js", "blind_prompts.js", "blind_setup.js",
    "blind_design.js", "blind_results.js", "blind.js",
)  # fmt: skip


class BlindDesk:
    """What the owner's page can ask for; what a rater's page asks for is the RatingDesk's."""

    def __init__(
        self, access: Access, trials: Trials, form: Form, generations: Generations
    ) -> None:
        self.access, self.trials = access, trials
        self.form, self.generations = form, generations

    def trials_now(self, request: Request) -> Answer:
        """Which trials there are, and for the owner how the making of answers stands.

        The list names no model: whoever looks at it may be about to rate.
        """
        is_owner = self.access.is_owner(request)
        found = self.trials.standings(request)
        return {
            "access": self.access.who(request),
            "trials": [standing_as_data(standing, is_owner=is_owner) for standing in found],
            "generation": self.generations.as_data() if is_owner else None,
        }

    def choices(self, request: Request) -> Answer:
        """What a trial can be made of."""
        self.access.require_owner(request, "setting up a trial")
        return self.form.choices()

    def plan(self, request: Request) -> Answer:
        """What a trial can be expected to find, before anything is decided."""
        self.access.require_owner(request, "planning")
        return self.form.planned(request.get("design"), Ledger(self.trials.folder))

    def upload(self, request: Request) -> Answer:
        """A file of prompts."""
        self.access.require_owner(request, "uploading")
        return self.form.upload(request.get("file"), request.get("text"))

    def upload_card(self, request: Request) -> Answer:
        """A character card, with what is said to the character."""
        self.access.require_owner(request, "uploading")
        data, requests = request.get("data"), request.get("requests")
        return self.form.upload_card(request.get("file"), data, requests, request.get("user"))

    def create(self, request: Request) -> Answer:
        """Fix a design; from now on it can only be amended."""
        self.access.require_owner(request, "setting up a trial")
        trial = self.trials.create(*self.form.design(request.get("design")))
        return {"name": trial.design.name, "hash": trial.hash}

    def add_pack(self, request: Request) -> Answer:
        """A trial that was made elsewhere, to be rated here."""
        self.access.require_owner(request, "adding a pack")
        return {"name": self.trials.add_pack(request.get("data"))}

    def generate(self, request: Request) -> Answer:
        """Make the answers that a trial lacks; engines named in `stop` make room for them."""
        self.access.require_owner(request, "generating")
        folder = self.trials.path(request.get("trial"))
        wish = Wish(str(request.get("engine") or ""), request.get("gpus", 1), request.get("price"))
        self.generations.serving.stop(request.get("stop", []))
        self.generations.start(folder, wish)
        return self.generations.as_data()

    def cancel(self, request: Request) -> Answer:
        """Stop making answers."""
        self.access.require_owner(request, "cancelling")
        if request.get("number") == self.generations.snapshot().number:
            self.generations.cancel()
        return self.generations.as_data()

    def open_to_raters(self, request: Request) -> Answer:
        """Let everyone who reaches the studio rate a trial, or no longer."""
        self.access.require_owner(request, "opening a trial")
        self.trials.set_open(request.get("trial"), request.get("open") is True)
        return {}

    def design(self, request: Request) -> Answer:
        """What was decided for a trial, and what was amended since."""
        self.access.require_owner(request, "reading a design")
        return design_as_data(self.trials.trial(request.get("trial")))

    def amend(self, request: Request) -> Answer:
        """Change what may still be changed, for a reason that the report tells."""
        self.access.require_owner(request, "amending a design")
        trial, changes = self.trials.trial(request.get("trial")), request.get("changes")
        if not isinstance(changes, dict):
            raise StudioError("the changes are an object of named values")
        return design_as_data(amend(trial.folder, changes, str(request.get("why") or "")))


def blind_tab(
    desk: BlindDesk, rating: RatingDesk, reading: ReadingDesk, *, rating_only: bool = False
) -> None:
    """The tab's one component; with `rating_only` nobody can set up a trial or read its results."""
    handlers: tuple[Handler, ...] = (
        desk.trials_now, desk.open_to_raters, rating.join, rating.item, rating.vote, rating.skip,
        rating.undo, rating.reveal, reading.download,
    )  # fmt: skip
    if not rating_only:
        handlers += (
            desk.choices, desk.plan, desk.upload, desk.upload_card, desk.create, desk.add_pack,
            desk.generate, desk.cancel, desk.design, desk.amend, reading.results,
            reading.into_card,
        )  # fmt: skip
    part("blind-tab", {"rating_only": rating_only}, SCRIPTS, handlers)
