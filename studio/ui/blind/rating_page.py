"""The page of a machine or Space that only rates one trial pack, without torch or vLLM."""

from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from studio.arena.rating.pack import open_pack
from studio.settings import Settings
from studio.ui.access import Access
from studio.ui.blind.form import Form
from studio.ui.blind.generation import Generations
from studio.ui.blind.raters import Raters
from studio.ui.blind.rating import RatingDesk
from studio.ui.blind.reading import ReadingDesk
from studio.ui.blind.tab import BlindDesk, blind_tab
from studio.ui.blind.trials import Trials
from studio.ui.launch import head, launch


@dataclass(frozen=True)
class RatingStudio:
    """The page for rating."""

    settings: Settings
    page: gr.Blocks

    def launch(self) -> None:
        """Serve the page; returns at once. Raises StudioError if the address cannot be used."""
        launch(self.page, self.settings)

    def close(self) -> None:
        """Stop the server."""
        self.page.close(verbose=False)


def build_rating(settings: Settings, pack: Path) -> RatingStudio:
    """A page on which everybody who reaches it rates this pack.

    Raises StudioError if it is no pack. Votes lie in the data folder, as in the whole studio.
    """
    access = Access(settings)
    data = settings.data_dir.absolute()
    trials, raters = Trials(data / "trials", access), Raters(data / "raters")
    folder = open_pack(pack, trials.folder)
    trials.set_open(folder.name, True)
    merges = data / "merges"
    form = Form(data / "prompts", merges)
    desk = BlindDesk(access, trials, form, Generations(data))
    with gr.Blocks(title="Blind comparison", analytics_enabled=False, fill_width=True) as page:
        head(access)
        rating, reading = RatingDesk(trials, raters), ReadingDesk(access, trials, raters, merges)
        blind_tab(desk, rating, reading, rating_only=True)
    return RatingStudio(settings, page)
