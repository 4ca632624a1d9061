"""The page as a whole: its head, its tabs, and how it is launched."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from studio.serve.kept import Formats, Presets
from studio.serve.processes.fleet import Fleet
from studio.settings import Settings
from studio.ui.access import Access
from studio.ui.background import STUDIO
from studio.ui.blind.form import Form
from studio.ui.blind.generation import Generations
from studio.ui.blind.raters import Raters
from studio.ui.blind.rating import RatingDesk
from studio.ui.blind.reading import ReadingDesk
from studio.ui.blind.serving import Serving
from studio.ui.blind.tab import BlindDesk, blind_tab
from studio.ui.blind.trials import Trials
from studio.ui.launch import head, launch
from studio.ui.merge.bases import Bases
from studio.ui.merge.jobs import MergeJobs
from studio.ui.merge.library import Library
from studio.ui.merge.tab import MergeDesk, merge_tab
from studio.ui.merge.tuning import Tuner
from studio.ui.serve.tab import ServeDesk, serve_tab
from studio.ui.serve.try_desk import TryDesk


@dataclass(frozen=True)
class Studio:
    """The page and what runs behind it."""

    settings: Settings
    page: gr.Blocks
    jobs: MergeJobs
    generations: Generations
    fleet: Fleet
    bases: Bases

    def launch(self) -> None:
        """Serve the page; returns at once. Raises StudioError if the address cannot be used."""
        launch(self.page, self.settings)

    def close(self) -> None:
        """Stop what runs in the background, then the server."""
        self.generations.close()
        self.jobs.close()
        self.fleet.close()
        self.bases.close()
        self.page.close(verbose=False)


def build(settings: Settings, command: Sequence[str] = STUDIO) -> Studio:
    """The studio, ready to launch; `command` is what works in the background."""
    access = Access(settings)
    jobs = MergeJobs(settings.data_dir / "merges", command)
    fleet = Fleet(settings.data_dir / "engines")
    serving = Serving(fleet)
    generations = Generations(settings.data_dir, command, serving)
    trials = Trials(settings.data_dir.absolute() / "trials", access)
    raters = Raters(settings.data_dir.absolute() / "raters")
    kept = settings.data_dir / "serve"
    formats, presets = Formats(kept), Presets(kept)
    prompts = settings.data_dir.absolute() / "prompts"
    form = Form(prompts, jobs.folder, formats.written, serving, presets.all)
    bases = Bases(settings.data_dir, command)

    with gr.Blocks(title="Merge Studio", analytics_enabled=False, fill_width=True) as page:
        head(access)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Merge", id="merge"):
                library = Library(settings.data_dir / "recipes")
                merge_tab(MergeDesk(access, jobs, Tuner(bases), library))
            with gr.Tab("Serve", id="serve"):
                trying = TryDesk(access, fleet, settings.data_dir / "serve")
                serve_tab(ServeDesk(access, fleet, jobs.folder, trying.formats), trying)
            with gr.Tab("Blind", id="blind"):
                desk = BlindDesk(access, trials, form, generations)
                rating = RatingDesk(trials, raters)
                reading = ReadingDesk(access, trials, raters, jobs.folder)
                blind_tab(desk, rating, reading)
    return Studio(settings, page, jobs, generations, fleet, bases)
