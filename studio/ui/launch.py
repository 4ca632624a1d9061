"""How a page is begun and launched, whatever is on it."""

from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from studio import __version__
from studio.errors import StudioError
from studio.settings import Settings
from studio.ui.access import Access, answers
from studio.ui.assets import asset_routes
from studio.ui.gate import Gate
from studio.ui.theme import WEB, script, styles, theme


def head(access: Access) -> gr.HTML:
    """The head of the page: its name, and who is looking."""

    def who(request: Any) -> dict[str, Any]:
        return access.describe(request.get("token"))

    return gr.HTML(
        value={"version": __version__},
        html_template='<header class="ms-head"></header>',
        js_on_load=script("dom.js", "head.js"),
        server_functions=[answers(who)],
        elem_id="head",
        apply_default_css=False,
    )


def launch(page: gr.Blocks, settings: Settings) -> None:
    """Serve the page; returns at once. Raises StudioError if the address cannot be used."""
    try:
        page.launch(**launch_options(settings))
    except OSError as error:
        raise StudioError(
            f"cannot listen on {settings.host}, port {settings.port}: another program may use the "
            "port, or the address is not this machine's; set STUDIO_PORT or STUDIO_HOST"
        ) from error


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
