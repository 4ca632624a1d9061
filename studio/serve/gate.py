"""The door of every engine the studio starts: a key on every path, and no answer of a wrong model.

Plain ASGI without imports of a framework: the same class stands before vLLM and before the embedded
engine, in their processes.
"""

import asyncio
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

KEY_VARIABLE = "ENGINE_KEY"
MODEL_VARIABLE = "ENGINE_MODEL"
MODEL_HEADER = "x-studio-model"
GENERATING = "/v1/completions"
OPEN_PATHS = frozenset(
    {
        "/health",
        "/metrics",
        "/v1/models",
        "/v1/chat/completions",
        GENERATING,
        "/v1/studio/resident",
        "/v1/studio/switch",
        "/v1/studio/sleep",
        "/v1/studio/wake",
    }
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass
class Residency:
    """Which model's weights are in the engine.

    `model` is the id the studio gave it; None while they change, or when they are known to be
    wrong: then nothing is answered. `in_flight` counts the generations that are under way.
    `sleeping` is the model whose weights were given up for a while and are to come back.
    """

    model: str | None
    path: str
    in_flight: int = 0
    sleeping: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Gate:
    """Lets in who shows the key, to the paths that the studio uses; counts what is under way.

    A request may say, in the header `x-studio-model`, for which model it is meant: while another
    one is resident, or none, it is turned away with 409 and never reaches the engine.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = os.environ.get(KEY_VARIABLE, "").encode()
        if len(self._key) < 32:
            raise RuntimeError(f"{KEY_VARIABLE} must hold the engine's key; refusing to serve")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
        state = getattr(scope.get("app"), "state", None)
        residency: Residency | None = getattr(state, "residency", None)
        refusal = self._refusal(scope, headers, residency)
        if refusal:
            await _refuse(scope, send, *refusal)
        elif residency is not None and scope["path"] in (GENERATING, "/v1/chat/completions"):
            residency.in_flight += 1
            try:
                await self._app(scope, receive, send)
            finally:
                residency.in_flight -= 1
        else:
            await self._app(scope, receive, send)

    def _refusal(
        self, scope: Message, headers: dict[str, bytes], residency: Residency | None
    ) -> tuple[int, str] | None:
        shown = headers.get("authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(shown, self._key):
            return 401, "the engine's key is missing or wrong"
        if scope["type"] != "http" or scope["path"] not in OPEN_PATHS:
            return 404, "the engine has no such path"
        if residency is None or scope["path"] not in (GENERATING, "/v1/chat/completions"):
            return None
        meant = headers.get(MODEL_HEADER)
        if residency.model is None:
            return 409, "the engine's weights are being changed; try again when that is done"
        if meant is not None and meant.decode("latin-1") != residency.model:
            return 409, "another model is in the engine now; ask for the one that is there"
        return None


async def _refuse(scope: Message, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"error": {"message": reason, "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
