"""What reaches the studio at all: a small filter in front of Gradio's many routes."""

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.settings import is_loopback
from studio.ui.assets import PLOTLY

# Gradio also has routes that take files, run functions by name, fetch other sites or edit code.
# The page needs none of them, so they are shut: a new tab that needs one adds it here.
PAGES = (
    "/", "/config", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css",
    "/gradio_api/app_id", "/gradio_api/startup-events", "/gradio_api/theme.css", PLOTLY,
)  # fmt: skip
FOLDERS = ("/assets/", "/static/", "/svelte/", "/pwa_icon", "/gradio_api/heartbeat/")
POSTS = ("/gradio_api/component_server",)
LARGEST_BODY = 1_000_000


class Gate:
    """ASGI middleware: refuses unknown routes, large bodies and, where `local`, other sites.

    Where everyone on this machine is the owner, a page of another site in the same browser must
    not pass for one: the host must be a loopback name (against DNS rebinding) and the origin,
    where the browser tells it, this very host (against forged requests).
    """

    def __init__(self, app: ASGIApp, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, _limited(receive), send)
        elif scope["type"] == "http":
            status, text = refusal
            await PlainTextResponse(text, status)(scope, receive, send)
        else:  # a websocket, which the studio does not speak
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if scope["type"] != "http":
            return 404, "not here"
        if self.local and not _same_machine(headers):
            return 403, "this studio answers only pages that it served itself, on this machine"
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
        if scope["method"] in ("GET", "HEAD"):
            known = path in PAGES or path.startswith(FOLDERS)
        else:
            known = scope["method"] == "POST" and path in POSTS
        if not known:
            return 404, "not here"
        if scope["method"] == "POST":
            if not headers.get("content-type", "").startswith("application/json"):
                return 415, "send JSON"
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > LARGEST_BODY:
                return 413, "too large"
        return None


def _same_machine(headers: Headers) -> bool:
    host = headers.get("host", "")
    try:
        if not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return False
    except ValueError:
        return False
    origin = headers.get("origin")
    return origin is None or origin in (f"http://{host}", f"https://{host}")


def _limited(receive: Receive) -> Receive:
    """`receive`, ending the request where its body grows beyond the limit (no length was told)."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= LARGEST_BODY else {"type": "http.disconnect"}

    return limited
