"""How a page is begun, put together of parts, and launched, whatever is on it."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from studio.errors import StudioError
from studio.settings import Settings
from studio.ui.access import Access, Answer, Handler, answers
from studio.ui.assets import asset_routes
from studio.ui.gate import Gate
from studio.ui.theme import WEB, script, styles, theme

OPENING = '<div class="ms" aria-busy="true"><p class="ms-wait">Opening …</p></div>'


def head(access: Access) -> None:
    """Begin the page with its name, and who is looking."""
    template = '<header class="ms-head"></header>'
    part("head", {}, ("dom.js", "head.js"), (access.who,), template)


def part(
    name: str,
    value: Answer,
    scripts: Sequence[str],
    handlers: Sequence[Handler],
    template: str = OPENING,
) -> None:
    """Put a part of the page into the block at hand: an element `name`, which the scripts fill.

    `value`: what they know from the start; `handlers`: what they can ask, each by its own name.
    """
    # Not a subclass: Gradio writes a .pyi file beside the module of each class of components.
    gr.HTML(
        value=value,
        html_template=template,
        js_on_load=script(*scripts),
        server_functions=[answers(handler) for handler in handlers],
        elem_id=name,
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
