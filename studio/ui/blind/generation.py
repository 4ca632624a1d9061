"""The answers of a trial, made in the background."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.ui.background import STUDIO, Background, Job
from studio.ui.blind.serving import Serving

ENGINES = ("", "vllm", "embedded")
MOST_GPUS = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """How answers are to be made: raises StudioError for what cannot be.

    `engine`: one of ENGINES, "" for vLLM where it is installed; `gpus`: how many of them each model
    is split over; `price`: of the machine an hour, None if it is not to be told what it costs.
    """

    engine: str = ""
    gpus: int = 1
    price: float | None = None

    def __post_init__(self) -> None:
        is_count = type(self.gpus) is int and 1 <= self.gpus <= MOST_GPUS
        if self.engine not in ENGINES or not is_count:
            raise StudioError(f"choose one of the engines, and 1 to {MOST_GPUS} GPUs for a model")
        is_price = type(self.price) in (int, float) and 0 <= float(self.price or 0) < math.inf
        if self.price is not None and not is_price:
            raise StudioError("the price is what the machine costs an hour; leave it out or give 8")


class Generations(Background):
    """Makes the answers of one trial at a time, by `generate` of the command line.

    `wishes`: how they were made last, by trial, so that a trial goes on as it was begun.
    """

    def __init__(
        self, data_dir: Path, command: Sequence[str] = STUDIO, serving: Serving | None = None
    ) -> None:
        super().__init__(command, data_dir, 'answers are being made for "{name}"')
        self.serving = serving or Serving()
        self.wishes: dict[str, Wish] = {}

    def start(self, folder: Path, wish: Wish | None = None) -> Job:
        """Make the answers that the trial in `folder` lacks; raises StudioError if some are being
        made."""
        wish = wish or Wish()
        arguments = ["generate", str(folder)]
        arguments += ["--engine", wish.engine] if wish.engine else []
        arguments += ["--tensor-parallel-size", str(wish.gpus)] if wish.gpus > 1 else []
        job = self.begin(folder.name, lambda: arguments, self.serving.environ())
        self.wishes[folder.name] = wish
        return job

    def as_data(self) -> dict[str, Any]:
        """The latest one for the owner's page."""
        job = self.snapshot()
        return {
            "number": job.number,
            "state": job.state,
            "trial": job.name,
            "phase": job.phase,
            "done": job.done,
            "total": job.total,
            "seconds": round(job.seconds, 1),
            "left": job.left,
            "error": job.error,
            "in_the_way": self.serving.named(_ids(job.told)),
            "wishes": {name: asdict(wish) for name, wish in self.wishes.items()},
            # What a process says beside its data may name models: only a failure is worth that.
            "talk": _beside(job) if job.state == "failed" else [],
        }


def _beside(job: Job) -> list[str]:
    """The last of what it said that is not in the error itself."""
    told = {line.strip() for line in f"error: {job.error}".splitlines()}
    return [line for line in job.talk if line not in told][-12:]


def _ids(told: Mapping[str, Any]) -> list[str]:
    """The engines that a failed process named as being in its way."""
    found = told.get("in_the_way")
    return [str(each) for each in found] if isinstance(found, list) else []
