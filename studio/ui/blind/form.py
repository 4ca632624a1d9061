"""From the page's form to a trial's design, and what there is to choose from."""

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from studio.arena.outcome.power import plan
from studio.arena.prompts.cards import read_card
from studio.arena.prompts.prompt import Prompt, load_prompts, parse_prompts
from studio.arena.trials.design import Design, FindFormat, Format, with_formats
from studio.arena.trials.design_yaml import design_from_data
from studio.arena.trials.ledger import BUDGET, Ledger, prompt_hash
from studio.arena.trials.workload import workload
from studio.durable import locked, write_whole
from studio.errors import StudioError
from studio.serve.sampling import PRESETS, Sampling
from studio.ui.blind.models import offered
from studio.ui.blind.serving import Serving

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "prompts"
DEMO_MODELS = ROOT / "demo" / "models"
LARGEST_UPLOAD = 900_000
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}\.(?:yaml|yml|jsonl|csv)")
_FIELDS = (
    "name", "project", "models", "primary", "compare", "prompts", "categories", "sealed",
    "sensitive", "sampling", "draws", "votes_per_prompt", "raters", "reveal", "scores", "expect",
    "expect_ties", "alpha", "seen_prompts", "exclusions", "stop_early", "overlap", "repeats",
    "identical",
)  # fmt: skip


def _none(model: str, name: str | None) -> None:
    """No format was edited."""


class Form:
    """What a trial can be made of: prompt files, models and sampling presets.

    `uploads`: where uploaded prompt files are kept; `merges`: where finished merges are; `written`:
    the prompt formats that were edited for models, see `with_formats`; `serving`: has the servers
    that are attached in the Serve tab; `presets`: the sampling presets there are now.
    """

    def __init__(
        self,
        uploads: Path,
        merges: Path,
        written: FindFormat = _none,
        serving: Serving | None = None,
        presets: Callable[[], Mapping[str, Sampling]] = lambda: PRESETS,
    ) -> None:
        self._uploads, self._merges, self._written = uploads, merges, written
        self._serving, self._presets = serving or Serving(), presets

    def choices(self) -> dict[str, Any]:
        """Everything the form offers."""
        return {
            "prompts": [self._about(path) for path in self._files()],
            "models": [*self._serving.models(), *offered(self._merges, DEMO_MODELS)],
            "presets": {name: sampling.as_data() for name, sampling in self._presets().items()},
        }

    def design(self, data: object) -> tuple[Design, list[Prompt]]:
        """The design that the form describes, and its prompts; raises StudioError otherwise."""
        if not isinstance(data, dict):
            raise StudioError("the form is an object of named values")
        if strange := [key for key in data if key not in _FIELDS]:
            raise StudioError(f'"{str(strange[0])[:40]}" is no field of the form')
        files = data.get("prompts")
        if not isinstance(files, list) or not files:
            raise StudioError("choose at least one file of prompts")
        prompts = load_prompts(*[self._file(name) for name in files])
        sampling = data.get("sampling", "careful")
        presets = self._presets()
        if not isinstance(sampling, str) or sampling not in presets:
            raise StudioError(f"sampling: choose one of {', '.join(presets)}")
        values = {"preset": sampling, **presets[sampling].shared()}
        design = design_from_data({**data, "sampling": values})
        for model in design.used_models:
            self._serving.check(model.source)
        design = with_formats(design, self._written)
        if not (some := design.choose(prompts)):
            raise StudioError("none of the prompts fits this choice; choose more of them")
        return design, some

    def planned(self, data: object, ledger: Ledger) -> dict[str, Any]:
        """What the trial can be expected to find, how much work it is, which models are asked in
        an edited format, what its project may still spend, and how many prompts are sealed or were
        seen before.
        """
        design, prompts = self.design(data)
        account = ledger.account(design.project)
        told = plan(design, len(prompts))
        pairs = len(design.comparisons)
        return {
            "sentence": told.sentence(),
            "scope": told.scope(),
            "workload": workload(design, prompts),
            "power": told.power,
            "prompts": len(prompts),
            "votes": told.votes * pairs,
            "answers": len(design.used_models) * len(prompts) * design.draws,
            "pairs": [list(pair) for pair in design.comparisons],
            "edited": [m.label for m in design.models if isinstance(m.prompt_format, Format)],
            "left": account.left,
            "budget": BUDGET,
            "sealed": sum(prompt.sealed for prompt in prompts),
            "seen": sum(prompt_hash(prompt) in account.burnt for prompt in prompts),
        }

    def upload(self, name: object, text: object) -> dict[str, Any]:
        """Keep a file of prompts; raises StudioError with the line of what is wrong in it.

        A file of the same name is replaced, and `replaced` tells so; trials that are fixed have
        prompts of their own.
        """
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise StudioError(
                "a prompt file is named with letters, digits, dots and dashes and ends in .yaml, "
                ".jsonl or .csv"
            )
        if not isinstance(text, str) or len(text.encode()) > LARGEST_UPLOAD:
            raise StudioError(f"a prompt file has at most {LARGEST_UPLOAD:,} bytes")
        if (SHIPPED / name).exists():
            raise StudioError(f"{name} is the name of a file of the studio; choose another")
        parse_prompts(text, name)
        with self._locked():
            replaced = (self._uploads / name).exists()
            return self._keep(name, text) | {"replaced": replaced}

    def upload_card(
        self, name: object, data: object, requests: object, user: object
    ) -> dict[str, Any]:
        """Make a prompt file of a character card: one prompt for each of the user's `requests`.

        `data`: the card, or of a PNG what it holds beside the picture, in base64.
        """
        if not isinstance(requests, list) or not all(isinstance(each, str) for each in requests):
            raise StudioError("what is said to the character is a list of texts")
        said = [each.strip() for each in requests if each.strip()]
        if not said or not isinstance(user, str):
            raise StudioError("say something to the character: one prompt is made of each line")
        try:
            card = read_card(base64.b64decode(str(data), validate=True), str(name)[:100])
        except binascii.Error as error:
            raise StudioError("the card arrived damaged; try again") from error
        with self._locked():
            stem = self._free(card.stem)
            prompts = card.prompts(said, user.strip() or "User", stem)
            text = "".join(json.dumps(prompt.as_data()) + "\n" for prompt in prompts)
            parse_prompts(text, f"{stem}.jsonl")  # two requests may be nearly the same
            return self._keep(f"{stem}.jsonl", text) | {"notes": list(card.notes)}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._uploads.mkdir(parents=True, exist_ok=True)
        with locked(self._uploads):
            yield

    def _free(self, stem: str) -> str:
        """A name that no other card's prompts have: two characters may be called alike."""
        numbered = (f"{stem}-{number}" for number in count(2))
        return next(
            name
            for name in chain([stem], numbered)
            if not (self._uploads / f"{name}.jsonl").exists()
        )

    def _keep(self, name: str, text: str) -> dict[str, Any]:
        write_whole(self._uploads / name, text)
        return self._about(self._uploads / name)

    def _files(self) -> list[Path]:
        shipped = sorted(SHIPPED.glob("*.yaml"), key=lambda path: (path.stem != "demo", path.name))
        mine = sorted(p for p in self._uploads.glob("*") if _FILE.fullmatch(p.name))
        return [*shipped, *mine]

    def _file(self, name: object) -> Path:
        found = {path.name: path for path in self._files()}
        if name not in found:
            raise StudioError(f"there are no prompts named {str(name)[:80]!r}")
        return found[str(name)]

    def _about(self, path: Path) -> dict[str, Any]:
        try:
            prompts = load_prompts(path)
        except StudioError as error:
            return {"file": path.name, "problem": str(error), "categories": {}}
        return {
            "file": path.name,
            "categories": dict(Counter(prompt.category for prompt in prompts)),
            "sealed": sum(prompt.sealed for prompt in prompts),
            "sensitive": sum(prompt.sensitive for prompt in prompts),
        }
