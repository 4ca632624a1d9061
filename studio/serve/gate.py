"""The door of every engine the studio starts: a key on every path, and no answer of a wrong model.

Plain ASGI without imports of a framework: the same class stands before vLLM and before the embedded
engine, in their processes.
"""

import asyncio
import hmac
import json
import logging
import os
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

KEY_VARIABLE = "ENGINE_KEY"
MODEL_VARIABLE = "ENGINE_MODEL"
MODEL_HEADER = "x-studio-model"
GENERATING = "/v1/completions"
GENERATIONS = frozenset({GENERATING, "/v1/chat/completions"})
OPEN_PATHS = frozenset(
    {
        "/health",
        "/metrics",
        "/v1/models",
        "/v1/studio/resident",
        "/v1/studio/switch",
        "/v1/studio/sleep",
        "/v1/studio/wake",
    }
    | GENERATIONS
)
WHOLE_SECONDS = 30.0  # for a request to arrive; the longest prompt is some hundred kilobytes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
log = logging.getLogger("uvicorn.error")  # of both servers; none else is sure to be shown


@dataclass
class Residency:
    """Which model's weights are in the engine.

    `model` is the id the studio gave it; None while they change, or when they are known to be
    wrong: then nothing is answered. `under_way` holds a deadline for each generation that is not
    over, which is never unless a switch sets it. `sleeping` is the model whose weights were given
    up for a while and are to come back.
    """

    model: str | None
    path: str
    under_way: set[asyncio.Timeout] = field(default_factory=set)
    sleeping: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Gate:
    """Lets in who shows the key, to the paths that the studio uses; knows what is under way.

    A generation is let in once the request is here whole, so that none that stalls half sent is
    waited for. It may say, in the header `x-studio-model`, for which model it is meant: while
    another one is resident, or none, it is turned away with 409 and never reaches the engine.
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
        if refusal := self._refusal(scope, headers):
            await _refuse(scope, send, *refusal)
            return
        state = getattr(scope.get("app"), "state", None)
        residency: Residency | None = getattr(state, "residency", None)
        if residency is None or scope["path"] not in GENERATIONS:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                request = await _whole(receive)
        except TimeoutError:
            late = f"the request did not come whole within {WHOLE_SECONDS:g} s"
            await _refuse(scope, send, 408, late)
            return
        if request is None:
            return  # nobody is there to be answered
        if problem := _not_resident(residency, headers.get(MODEL_HEADER)):
            await _refuse(scope, send, 409, problem)
        else:
            await self._generate(residency, scope, _first(request, receive), send)

    def _refusal(self, scope: Message, headers: dict[str, bytes]) -> tuple[int, str] | None:
        shown = headers.get("authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(shown, self._key):
            return 401, "the engine's key is missing or wrong"
        if scope["type"] != "http" or scope["path"] not in OPEN_PATHS:
            return 404, "the engine has no such path"
        return None

    async def _generate(
        self, residency: Residency, scope: Message, receive: Receive, send: Send
    ) -> None:
        """Pass the request on; it is under way until its answer is taken, or it is cut off."""
        try:
            async with asyncio.timeout(None) as deadline:
                residency.under_way.add(deadline)
                try:
                    await self._app(scope, receive, send)
                finally:
                    residency.under_way.remove(deadline)
        except TimeoutError:
            if not deadline.expired():
                raise
        if deadline.expired():  # the application may have made an end of its own of it
            log.warning("an answer that nobody took was cut off: the weights are to be changed")


def _not_resident(residency: Residency, meant: bytes | None) -> str:
    """Why a request meant for a model (None: for any) is not answered now; or empty."""
    if residency.model is None:
        return "the engine's weights are being changed; try again when that is done"
    if meant is not None and meant.decode("latin-1") != residency.model:
        return "another model is in the engine now; ask for the one that is there"
    return ""


async def _whole(receive: Receive) -> Message | None:
    """The whole body of a request as one message; None if the client left before its end."""
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}
    return None


def _first(message: Message, receive: Receive) -> Receive:
    """Gives the message, then whatever comes."""
    waiting = [message]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


async def _refuse(scope: Message, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"error": {"message": reason, "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 408:
        headers.append((b"connection", b"close"))  # what is still to come is no new request
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
