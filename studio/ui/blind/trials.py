"""The trials in the data folder: which there are, how far they are, and who may rate them."""

import base64
import binascii
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.arena.prompts.prompt import Prompt
from studio.arena.rating.amending import amendment_words
from studio.arena.rating.pack import open_pack
from studio.arena.rating.sheet import PACK, open_sheet
from studio.arena.trials.answers import missing
from studio.arena.trials.design import NAME, Design
from studio.arena.trials.design_yaml import design_text
from studio.arena.trials.trial import FIXED, Trial, begin, open_trial
from studio.durable import locked, write_whole
from studio.errors import StudioError
from studio.ui.access import Access, Request

OPEN = "open.json"
OURS = ("vllm", "embedded")  # the engines that are started here


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a trial is: `answers` made of those `needed`; `is_pack`: came without its models.

    `name` is its folder's, `title` the one its design gives it: a pack's folder is named by a hash.
    `problem`: why it cannot be opened, empty if it can. `engine`, `gpus`: how the last answer was
    made, so that the others are made alike; "" before there is one.
    """

    name: str
    title: str
    answers: int
    needed: int
    is_open: bool
    is_pack: bool = False
    problem: str = ""
    engine: str = ""
    gpus: int = 1

    @property
    def is_ready(self) -> bool:
        """Whether it can be rated."""
        return not self.problem and self.answers == self.needed


class Trials:
    """The folders of trials; a folder's name is its trial's."""

    def __init__(self, folder: Path, access: Access) -> None:
        self.folder, self._access = folder, access

    def path(self, name: object) -> Path:
        """The folder of a trial; raises StudioError if there is none of that name."""
        if isinstance(name, str) and NAME.fullmatch(name):
            folder = self.folder / name
            if (folder / FIXED).exists() or (folder / PACK).exists():
                return folder
        raise StudioError("there is no trial of that name; load the page again")

    def trial(self, name: object) -> Trial:
        """A trial with its models; raises StudioError for a pack, which came without them."""
        folder = self.path(name)
        if (folder / PACK).exists():
            raise StudioError(
                "a trial pack does not know its models: send its votes to whoever made it"
            )
        return open_trial(folder)

    def for_rater(self, request: Request) -> Path:
        """The folder of the `trial` asked for, if whoever asks may rate it.

        Raises StudioError otherwise: whoever may not rate it does not learn whether it exists.
        """
        name = request.get("trial")
        known = isinstance(name, str) and NAME.fullmatch(name)
        self._access.require_rater(request, is_open=bool(known) and self.is_open(str(name)))
        return self.path(name)

    def is_open(self, name: str) -> bool:
        """Whether its owner has opened it for raters."""
        return (self.folder / name / OPEN).exists()

    def set_open(self, name: object, is_open: bool) -> None:
        """Let everyone who reaches the studio rate this trial, or no longer."""
        folder = self.path(name)
        with locked(folder):
            if is_open:
                write_whole(folder / OPEN, json.dumps({"open": True}) + "\n")
            else:
                (folder / OPEN).unlink(missing_ok=True)

    def create(self, design: Design, prompts: list[Prompt]) -> Trial:
        """Fix a design in a folder of its own; raises StudioError if the name is taken, or if the
        project's error budget is spent."""
        folder = self.folder / design.name
        if folder.exists():
            raise StudioError(f'a trial named "{design.name}" exists; choose another name')
        self.folder.mkdir(parents=True, exist_ok=True)
        return begin(self.folder, design, prompts)

    def add_pack(self, data: object) -> str:
        """Take in a trial pack, given as base64 of its file; returns the name it has here.

        Raises StudioError if it is none.
        """
        try:
            archive = base64.b64decode(str(data), validate=True)
        except binascii.Error as error:
            raise StudioError("the pack arrived damaged; try again") from error
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pack.zip"
            file.write_bytes(archive)
            try:
                return open_pack(file, self.folder).name
            except StudioError as error:
                raise StudioError(str(error).replace(str(file), "this file")) from error

    def standings(self, request: Request) -> list[Standing]:
        """The trials that whoever asks may see, by name: all for the owner, else the open ones."""
        if not self.folder.is_dir():
            return []
        is_owner = self._access.is_owner(request)
        names = sorted(
            path.name
            for path in self.folder.iterdir()
            if NAME.fullmatch(path.name) and ((path / FIXED).exists() or (path / PACK).exists())
        )
        return [self.standing(name) for name in names if is_owner or self.is_open(name)]

    def standing(self, name: str) -> Standing:
        """How far one trial is."""
        folder = self.folder / name
        try:
            if (folder / PACK).exists():
                sheet = open_sheet(folder)
                cards = sum(len(slot) for slot in sheet.slots)
                return Standing(name, sheet.trial, cards, cards, self.is_open(name), is_pack=True)
            trial = open_trial(folder)
            answers = trial.answers()
            lacking = len(missing(trial.needed, answers))
        except StudioError as error:
            return Standing(name, name, 0, 0, self.is_open(name), problem=str(error))
        needed = len(trial.needed)
        made = [a.identity for a in answers.values() if a.identity.get("engine") in OURS]
        engine = made[-1]["engine"] if made else ""
        gpus = int(made[-1].get("tensor_parallel_size", 1)) if made else 1
        is_open = self.is_open(name)
        return Standing(name, name, needed - lacking, needed, is_open, engine=engine, gpus=gpus)


def design_as_data(trial: Trial) -> dict[str, Any]:
    """A trial's design as its owner may read and amend it."""
    design = trial.design.as_data()
    wanted = ("exclusions", "reveal", "stop_early", "primary", "draws", "raters", "alpha")
    return {
        **{key: design[key] for key in wanted},
        "models": [model.label for model in trial.design.used_models],
        "prompts": len(trial.prompts),
        "text": design_text(trial.design),
        "hash": trial.hash,
        "amendments": [
            {"when": each["when"], "votes": each["votes"], "why": each["why"],
             "words": amendment_words(each)}
            for each in trial.amendments
        ],
    }  # fmt: skip


def standing_as_data(standing: Standing, *, is_owner: bool) -> dict[str, Any]:
    """What the page is told of a trial. Nothing here names a model: its owner may rate it too."""
    shown: dict[str, Any] = {
        "name": standing.name,
        "title": standing.title,
        "ready": standing.is_ready,
    }
    if is_owner:
        shown |= {
            "answers": standing.answers,
            "needed": standing.needed,
            "open": standing.is_open,
            "pack": standing.is_pack,
            "engine": standing.engine,
            "gpus": standing.gpus,
            "problem": standing.problem,
        }
    return shown
