"""The Serve tab: models, the plan, the engines, and a small chat to try one."""

from collections.abc import Sequence
from pathlib import Path

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.serve.kept import Formats
from studio.serve.planning.quantisation import unlike
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.machine import default_engine, has_vllm
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from studio.ui.access import Access, Answer, Request
from studio.ui.finished import results_in
from studio.ui.launch import part
from studio.ui.merge.recipe_json import recipe_from_json
from studio.ui.serve.models import MOST_ADDED, offered
from studio.ui.serve.plans import names_in, plan_answer, plan_of, specs_of
from studio.ui.serve.try_desk import TryDesk

MOST_LINES = 400
SCRIPTS = (
    "dom.js", "serve_models.js", "serve_plan.js", "serve_engines.js", "serve_sampling.js",
    "serve_format.js", "serve_chat.js", "serve.js",
)  # fmt: skip


class ServeDesk:
    """What the page can ask for about models and engines.

    A visitor learns only that the tab is the owner's: which models run, on what, and what they say
    would give a blind comparison away.
    """

    def __init__(self, access: Access, fleet: Fleet, merges: Path, formats: Formats) -> None:
        self.access, self.fleet, self.merges, self.formats = access, fleet, merges, formats

    def engines(self, request: Request) -> Answer:
        """Every engine as it stands; of the one named in `log`, the last lines of its log."""
        access = self.access.who(request)
        if not self.access.is_owner(request):
            return {"access": access, "engines": []}
        engines = [state.as_data() for state in self.fleet.snapshot()]
        shown = str(request.get("log"))
        log = self.fleet.log(shown, MOST_LINES) if shown in [e["id"] for e in engines] else []
        return {
            "access": access,
            "engines": engines,
            "log": log,
            "warning": unlike(_held(self.fleet.snapshot())),
            "found": list(self.fleet.found),
            "engine": default_engine(),
            "has_vllm": has_vllm(),
        }

    def models(self, request: Request) -> Answer:
        """The models to choose from: sources of the page's recipe, merges, and those added."""
        self.access.require_owner(request, "serving")
        added = request.get("added", [])
        if not isinstance(added, list) or not all(isinstance(each, str) for each in added):
            raise StudioError("the added models must be a list of names")
        merges = results_in(self.merges)
        found = offered(_draft(request), merges, added[:MOST_ADDED], self.formats)
        return {"models": found}

    def plan(self, request: Request) -> Answer:
        """The plan for the chosen models."""
        self.access.require_owner(request, "planning")
        return plan_answer(request)

    def start(self, request: Request) -> Answer:
        """Start what the plan says: all its models, or those named in `only`."""
        self.access.require_owner(request, "serving")
        engine = request.get("engine")
        if engine not in ("vllm", "embedded"):
            raise StudioError(f"there is no engine {engine!r}; use vllm or embedded")
        idle = request.get("idle_minutes")
        if idle is not None and type(idle) not in (int, float):
            raise StudioError(f"idle_minutes is {idle!r}; use a number, or leave it out")
        plan = plan_of(request)
        only = names_in(request.get("only") or list(plan.shapes))
        strange = [name for name in only if name not in plan.shapes]
        if strange:
            raise StudioError(f"{strange[0]} is not in the plan")
        specs = specs_of(plan, engine, only, idle)
        return {"ids": [self.fleet.start(spec) for spec in specs]}

    def attach(self, request: Request) -> Answer:
        """Attach to a server that runs elsewhere."""
        self.access.require_owner(request, "serving")
        url, model, label, key = (
            str(request.get(name) or "").strip() for name in ("url", "model", "label", "key")
        )
        spec = ModelSpec(engine="endpoint", url=url, model=model, label=label, key=key or None)
        return {"ids": [self.fleet.start(spec)]}

    def act(self, request: Request) -> Answer:
        """Stop, restart or forget an engine, or switch it to another model."""
        self.access.require_owner(request, "serving")
        name, action = str(request.get("id")), request.get("action")
        if action == "switch":
            (model,) = names_in([request.get("model")])
            self.fleet.switch(name, model)
        elif action in ("stop", "restart", "forget"):
            getattr(self.fleet, action)(name)
        else:
            raise StudioError(f"{action!r} cannot be done to an engine")
        return {}


def _held(states: Sequence[EngineState]) -> dict[str, tuple[str, str]]:
    """How the models that answer now are held: dtype and quantisation."""
    found = [(s.spec.name, s.identity) for s in states if s.phase == "ready" and s.identity]
    return {n: (i.dtype, i.quantisation or "none") for n, i in found if i.dtype is not None}


def _draft(request: Request) -> Recipe | None:
    """The recipe on the page's Merge tab; None if it has none, or one that is half-edited."""
    draft = request.get("recipe")
    if draft is None:
        return None
    try:
        return recipe_from_json(draft)
    except StudioError:
        return None


def serve_tab(desk: ServeDesk, trying: TryDesk) -> None:
    """The tab's one component."""
    handlers = (
        desk.engines, desk.models, desk.plan, desk.start, desk.attach, desk.act,
        trying.read_chat, trying.say, trying.stop_answer, trying.clear_chat, trying.show_prompt,
        trying.keep_format, trying.sampling, trying.keep_preset,
    )  # fmt: skip
    part("serve-tab", {}, SCRIPTS, handlers)
