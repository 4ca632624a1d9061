"""The Merge tab: a recipe to tune, its charts, and the merge under way."""

from dataclasses import asdict

from studio.errors import StudioError
from studio.merge.methods import METHODS
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.ui.access import Access, Answer, Request
from studio.ui.background import Job
from studio.ui.finished import read_report, results_in
from studio.ui.launch import part
from studio.ui.merge.jobs import MergeJobs, checked_name
from studio.ui.merge.library import Library
from studio.ui.merge.presets import presets, refuse_strange_models
from studio.ui.merge.recipe_json import recipe_from_json, recipe_to_json
from studio.ui.merge.tuning import Tuner

LONGEST_RECIPE = 200_000
LONGEST_BASE = 1000
SCRIPTS = (
    "dom.js", "rules.js", "recipes.js", "curve.js", "plot.js", "figures.js", "results.js",
    "lines.js", "stage.js", "editor.js", "graph.js", "merge.js", "library.js", "work.js", "tab.js",
)  # fmt: skip


class MergeDesk:
    """What the page can ask for; every request carries the visitor's `token`, or none."""

    def __init__(self, access: Access, jobs: MergeJobs, tuner: Tuner, library: Library) -> None:
        self.access, self.jobs, self.tuner, self.kept = access, jobs, tuner, library
        self.presets = presets()

    def preview(self, request: Request) -> Answer:
        """The charts' numbers for a recipe, with the heatmap's if `heatmap` asks for them."""
        return self.tuner.preview(
            self._recipe(request),
            request.get("layers", 32),
            self._base(request),
            with_heatmap=request.get("heatmap") is True,
        )

    def tensors(self, request: Request) -> Answer:
        """Every tensor's exact settings, weights and shares, as a table."""
        return self.tuner.tensors(self._recipe(request), request.get("layers", 32))

    def measure(self, request: Request) -> Answer:
        """Begin to measure the sources exactly, in the background."""
        self.access.require_owner(request, "measuring")
        return self.tuner.measure(self._recipe(request), self._base(request))

    def cancel_measuring(self, request: Request) -> Answer:
        """Cancel that for everyone; what was kept before stays kept."""
        self.access.require_owner(request, "cancelling")
        return self.tuner.cancel(self._recipe(request), self._base(request))

    def read_yaml(self, request: Request) -> Answer:
        """An uploaded recipe, for the page."""
        text = request.get("text")
        if not isinstance(text, str) or len(text) > LONGEST_RECIPE:
            raise StudioError(f"a recipe is text of at most {LONGEST_RECIPE:,} characters")
        recipe = load_recipe(text, str(request.get("file") or "recipe")[:100])
        self._may_use(recipe, request)
        return {"recipe": recipe_to_json(recipe), "warnings": list(recipe.warnings)}

    def write_yaml(self, request: Request) -> Answer:
        """A recipe as the text of a file."""
        return {"text": dump_recipe(self._recipe(request))}

    def library(self, request: Request) -> Answer:
        """What the owner has saved."""
        self.access.require_owner(request, "the library")
        return {"entries": [asdict(entry) for entry in self.kept.entries()]}

    def open_recipe(self, request: Request) -> Answer:
        """A saved recipe, for the page."""
        self.access.require_owner(request, "the library")
        return {"recipe": recipe_to_json(self.kept.open(request.get("name")))}

    def save_recipe(self, request: Request) -> Answer:
        """Save a recipe; `exists` if the name is taken and the page did not say to replace it."""
        self.access.require_owner(request, "saving")
        try:
            self.kept.save(
                request.get("name"),
                self._recipe(request),
                request.get("note"),
                replace=request.get("replace") is True,
            )
        except FileExistsError:
            return {"exists": True}
        return self.library(request)

    def delete_recipe(self, request: Request) -> Answer:
        """Delete a saved recipe."""
        self.access.require_owner(request, "deleting")
        self.kept.delete(request.get("name"))
        return self.library(request)

    def check_merge(self, request: Request) -> Answer:
        """The preflight check, in a process of its own."""
        self.access.require_owner(request, "checking")
        return self.jobs.check(dump_recipe(self._recipe(request)), request.get("name"))

    def start_merge(self, request: Request) -> Answer:
        """Start the merge."""
        self.access.require_owner(request, "merging")
        job = self.jobs.start(dump_recipe(self._recipe(request)), request.get("name"))
        return self._state(job, is_owner=True)

    def cancel_merge(self, request: Request) -> Answer:
        """Cancel the merge that the page shows."""
        self.access.require_owner(request, "cancelling")
        if request.get("number") == self.jobs.snapshot().number:
            self.jobs.cancel()
        return self._state(self.jobs.snapshot(), is_owner=True)

    def report(self, request: Request) -> Answer:
        """What the report of a finished merge says."""
        self.access.require_owner(request, "the results")
        return {"report": read_report(self.jobs.folder / checked_name(request.get("name")))}

    def state(self, request: Request) -> Answer:
        """How the latest merge stands, who is looking, and for the owner what has been made."""
        state = self._state(self.jobs.snapshot(), self.access.is_owner(request))
        return {"access": self.access.who(request), **state}

    def _recipe(self, request: Request) -> Recipe:
        recipe = recipe_from_json(request.get("recipe"))
        self._may_use(recipe, request)
        return recipe

    def _base(self, request: Request) -> str | None:
        """The model whose fine-tunes the sources are, if named; for visitors a shipped one."""
        base = request.get("base")
        if base is None:
            return None
        if not isinstance(base, str) or not 0 < len(base) <= LONGEST_BASE:
            raise StudioError(f"a base model is a name of at most {LONGEST_BASE} characters")
        known = {preset.base for preset in self.presets.values()}
        if base not in known and not self.access.is_owner(request):
            raise StudioError(f"{base}: enter the owner token to use other base models")
        return base

    def _may_use(self, recipe: Recipe, request: Request) -> None:
        if not self.access.is_owner(request):
            refuse_strange_models(recipe, self.presets)

    def _state(self, job: Job, is_owner: bool) -> Answer:
        shown: Answer = {
            "number": job.number,
            "state": job.state,
            "phase": job.phase,
            "done": job.done,
            "total": job.total,
            "seconds": round(job.seconds, 1),
            "speed": job.speed,
            "seconds_left": job.left,
        }
        if is_owner:  # names, paths and messages are not for visitors
            path = self.jobs.folder / job.name
            shown |= {"name": job.name, "path": str(path), "tensor": job.item}
            shown |= {"error": job.error, "talk": list(job.talk[-12:])}
            if job.state == "done":
                shown["report"] = read_report(path)
            return {"job": shown, "results": results_in(self.jobs.folder)}
        return {"job": shown, "results": []}


def describe_methods() -> Answer:
    """What the page's editor of stages needs to know of each method."""
    return {
        method.name: {
            "inputs": method.inputs,
            "least": method.least,
            "needs_base": method.needs_base,
            "settings": {
                name: {
                    "per_input": setting.per_input,
                    "default": setting.default,
                    "switch": setting.is_switch,
                    "fixed": setting.is_fixed,
                    "skips_base": setting.skips_base,
                }
                for name, setting in method.settings.items()
            },
        }
        for method in METHODS.values()
    }


def merge_tab(desk: MergeDesk) -> None:
    """The tab's one component; its value tells the page what recipes there are."""
    handlers = (
        desk.preview, desk.tensors, desk.measure, desk.cancel_measuring, desk.read_yaml,
        desk.write_yaml, desk.library, desk.open_recipe, desk.save_recipe, desk.delete_recipe,
        desk.check_merge, desk.start_merge, desk.cancel_merge, desk.report, desk.state,
    )  # fmt: skip
    shipped = [
        {
            "id": name,
            "title": preset.title,
            "layers": preset.layers,
            "base": preset.base,
            "recipe": recipe_to_json(preset.recipe),
        }
        for name, preset in desk.presets.items()
    ]
    part("merge-tab", {"presets": shipped, "methods": describe_methods()}, SCRIPTS, handlers)
