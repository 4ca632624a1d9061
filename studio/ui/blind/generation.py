"""The answers of a trial, made in the background."""

from collections.abc import Sequence
from pathlib import Path

from studio.errors import StudioError
from studio.ui.background import STUDIO, Background, Job

ENGINES = ("", "vllm", "embedded")
MOST_GPUS = 64


class Generations(Background):
    """Makes the answers of one trial at a time, by `generate` of the command line."""

    def __init__(self, data_dir: Path, command: Sequence[str] = STUDIO) -> None:
        super().__init__(command, data_dir, 'answers are being made for "{name}"')

    def start(self, folder: Path, engine: str = "", gpus: int = 1) -> Job:
        """Make the answers that the trial in `folder` lacks.

        `engine`: one of ENGINES, "" for vLLM where it is installed; `gpus`: how many of them each
        model is split over. Raises StudioError if one runs.
        """
        if engine not in ENGINES or type(gpus) is not int or not 1 <= gpus <= MOST_GPUS:
            raise StudioError(f"choose one of the engines, and 1 to {MOST_GPUS} GPUs for a model")
        arguments = ["generate", str(folder)]
        arguments += ["--engine", engine] if engine else []
        arguments += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
        return self.begin(folder.name, lambda: arguments)
