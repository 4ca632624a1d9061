"""The page as a whole: its head, its tabs, and how it is launched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from studio import __version__
from studio.errors import StudioError
from studio.serve.fleet import Fleet
from studio.settings import Settings
from studio.ui.access import Access, answers
from studio.ui.assets import asset_routes
from studio.ui.blind_form import Form
from studio.ui.blind_tab import BlindDesk, blind_tab
from studio.ui.gate import Gate
from studio.ui.generation import Generations
from studio.ui.jobs import STUDIO, MergeJobs
from studio.ui.library import Library
from studio.ui.merge_tab import MergeDesk, merge_tab
from studio.ui.raters import Raters
from studio.ui.rating import RatingDesk
from studio.ui.reading import ReadingDesk
from studio.ui.serve_tab import ServeDesk, serve_tab
from studio.ui.theme import WEB, script, styles, theme
from studio.ui.trials import Trials
from studio.ui.try_desk import TryDesk
from studio.ui.tuning import Tuner


@dataclass(frozen=True)
class Studio:
    """The page and what runs behind it."""

    settings: Settings
    page: gr.Blocks
    jobs: MergeJobs
    generations: Generations
    fleet: Fleet

    def launch(self) -> None:
        """Serve the page; returns at once. Raises StudioError if the address cannot be used."""
        host, port = self.settings.host, self.settings.port
        try:
            self.page.launch(**launch_options(self.settings))
        except OSError as error:
            raise StudioError(
                f"cannot listen on {host}, port {port}: another program may use the port, or the "
                "address is not this machine's; set STUDIO_PORT or STUDIO_HOST"
            ) from error

    def close(self) -> None:
        """Stop what runs in the background, then the server."""
        self.generations.close()
        self.jobs.close()
        self.fleet.close()
        self.page.close(verbose=False)


def build(settings: Settings, command: Sequence[str] = STUDIO) -> Studio:
    """The studio, ready to launch; `command` is what a merge and a check are started with."""
    access = Access(settings)
    jobs = MergeJobs(settings.data_dir / "merges", command)
    generations = Generations(command)
    fleet = Fleet(settings.data_dir / "engines")
    trials = Trials(settings.data_dir.absolute() / "trials", access)
    raters = Raters(settings.data_dir.absolute() / "raters")
    form = Form(settings.data_dir.absolute() / "prompts", jobs.folder)

    def who(request: Any) -> dict[str, Any]:
        return access.describe(request.get("token"))

    with gr.Blocks(title="Merge Studio", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(
            value={"version": __version__},
            html_template='<header class="ms-head"></header>',
            js_on_load=script("dom.js", "head.js"),
            server_functions=[answers(who)],
            elem_id="head",
            apply_default_css=False,
        )
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Merge", id="merge"):
                merge_tab(MergeDesk(access, jobs, Tuner(), Library(settings.data_dir / "recipes")))
            with gr.Tab("Serve", id="serve"):
                trying = TryDesk(access, fleet, settings.data_dir / "serve")
                serve_tab(ServeDesk(access, fleet, jobs.folder, trying.formats), trying)
            with gr.Tab("Blind", id="blind"):
                desk = BlindDesk(access, trials, form, generations)
                rating, reading = RatingDesk(trials, raters), ReadingDesk(access, trials, raters)
                blind_tab(desk, rating, reading)
    return Studio(settings, page, jobs, generations, fleet)


def launch_options(settings: Settings) -> dict[str, Any]:
    """How Gradio is launched: nothing public, nothing recorded, nothing fetched from elsewhere.

    What is not said here Gradio would read from its own environment variables.
    """
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "app_kwargs": {
            "middleware": [Middleware(Gate, local=settings.is_open)],
            "routes": asset_routes(),
        },
        "theme": theme(),
        "css": styles(),
        "favicon_path": WEB / "icon.svg",
        "share": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "allowed_paths": [],
        "run_history": False,
        "enable_monitoring": False,
        "show_error": False,
        "footer_links": [],
        "quiet": True,
        "prevent_thread_lock": True,
    }
