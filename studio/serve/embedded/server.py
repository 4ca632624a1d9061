"""The embedded model behind the same HTTP paths that vLLM has, as far as the studio uses them."""

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from dataclasses import fields
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from studio.errors import StudioError
from studio.serve import switching
from studio.serve.embedded.model import Model
from studio.serve.embedded.weights import EmbeddedWeights
from studio.serve.engine import Piece
from studio.serve.gate import App, Gate, Residency
from studio.serve.sampling import Sampling

Pieces = AsyncGenerator[Piece, None]
SAMPLING = {field.name for field in fields(Sampling)}


def build(model: Model, residency: Residency, served_name: str) -> App:
    """The server as an ASGI application, its door closed by the key in the environment."""
    answers = _Answers(model, served_name)
    weights = EmbeddedWeights(model, residency.path, answers.abort)

    async def change(request: Request) -> Response:
        body = await request.json()
        done = await switching.switch(residency, weights, str(body["model"]), str(body["path"]))
        return JSONResponse(done.as_data())

    async def resident(request: Request) -> Response:
        return JSONResponse(await switching.resident(residency, weights))

    async def health(request: Request) -> Response:
        return Response()

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", answers.metrics),
            Route("/v1/models", answers.models),
            Route("/v1/completions", answers.completions, methods=["POST"]),
            Route("/v1/studio/switch", change, methods=["POST"]),
            Route("/v1/studio/resident", resident),
        ]
    )
    app.state.residency = residency
    gate = Gate(app)

    async def with_app(scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = app  # as a middleware of the application would find it
        await gate(scope, receive, send)

    return with_app


class _Answers:
    """The completions of a model."""

    def __init__(self, model: Model, served_name: str) -> None:
        self._model = model
        self._name = served_name
        self._under_way: set[threading.Event] = set()
        self._prompt_tokens = self._answer_tokens = 0

    def abort(self) -> None:
        """End every answer that is under way."""
        for cancelled in list(self._under_way):
            cancelled.set()

    async def models(self, request: Request) -> Response:
        """The one model that is here."""
        length = self._model.max_model_len
        entry = {"id": self._name, "object": "model", "max_model_len": length}
        return JSONResponse({"object": "list", "data": [entry]})

    async def metrics(self, request: Request) -> Response:
        """Counters under vLLM's names."""
        values = {
            "vllm:generation_tokens_total": self._answer_tokens,
            "vllm:prompt_tokens_total": self._prompt_tokens,
            "vllm:num_requests_running": len(self._under_way),
            "vllm:num_requests_waiting": 0,
        }
        return PlainTextResponse("".join(f"{name} {value}\n" for name, value in values.items()))

    async def completions(self, request: Request) -> Response:
        """An answer, streamed or whole, or the log-probabilities of a prompt."""
        try:
            body = await request.json()
            prompt = self._prompt(body)
            sampling = Sampling.from_data({k: v for k, v in body.items() if k in SAMPLING})
            if body.get("prompt_logprobs") is not None:
                return JSONResponse(await asyncio.to_thread(self._scored, prompt))
            pieces = self._pieces(prompt, sampling, _ends(body))
            first = await anext(pieces)
        except (StudioError, ValueError) as error:
            return JSONResponse({"error": {"message": str(error), "code": 400}}, status_code=400)
        everything = _chain(first, pieces)
        if body.get("stream"):
            events = self._events(everything, len(prompt))
            return StreamingResponse(events, media_type="text/event-stream")
        found = [piece async for piece in everything]
        choice = _choice("".join(piece.text for piece in found), found[-1].finish_reason)
        return JSONResponse(self._reply([choice], len(prompt), found[-1].tokens))

    def _prompt(self, body: dict[str, Any]) -> list[int]:
        if body.get("model") != self._name:
            raise StudioError(f"there is no model {body.get('model')!r} here; ask for {self._name}")
        prompt = body.get("prompt")
        if isinstance(prompt, str):
            return self._model.encode(prompt, begin=body.get("add_special_tokens", True))
        if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
            return prompt
        raise StudioError("the prompt must be a text or a list of token ids")

    async def _pieces(
        self, prompt: Sequence[int], sampling: Sampling, ends: Collection[int]
    ) -> Pieces:
        """The pieces of an answer that a thread makes; it ends when nobody asks any more."""
        cancelled = threading.Event()
        made: queue.SimpleQueue[Piece | BaseException] = queue.SimpleQueue()

        def make() -> None:
            try:
                for piece in self._model.answer(prompt, sampling, ends, cancelled.is_set):
                    made.put(piece)
            except BaseException as error:  # goes on in the asking thread
                made.put(error)

        self._under_way.add(cancelled)
        self._prompt_tokens += len(prompt)
        threading.Thread(target=make, daemon=True).start()
        try:
            while True:
                piece = await asyncio.to_thread(made.get)
                if isinstance(piece, BaseException):
                    raise piece
                self._answer_tokens += 1
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            cancelled.set()
            self._under_way.discard(cancelled)

    async def _events(self, pieces: Pieces, prompt_tokens: int) -> AsyncIterator[str]:
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                choice = _choice(piece.text, piece.finish_reason)
                yield f"data: {json.dumps(self._reply([choice], prompt_tokens, piece.tokens))}\n\n"
        yield "data: [DONE]\n\n"

    def _scored(self, prompt: list[int]) -> dict[str, Any]:
        values = self._model.logprobs(prompt)
        entries = [
            None if value is None else {str(token): {"logprob": value}}
            for token, value in zip(prompt, values, strict=True)
        ]
        return self._reply([_choice("", "length") | {"prompt_logprobs": entries}], len(prompt), 0)

    def _reply(self, choices: list[dict[str, Any]], prompt: int, answer: int) -> dict[str, Any]:
        usage = {"prompt_tokens": prompt, "completion_tokens": answer}
        return {
            "object": "text_completion",
            "created": int(time.time()),
            "model": self._name,
            "choices": choices,
            "usage": usage | {"total_tokens": prompt + answer},
        }


def _ends(body: dict[str, Any]) -> list[int]:
    ends = body.get("stop_token_ids") or []
    if not isinstance(ends, list) or not all(type(token) is int for token in ends):
        raise StudioError("stop_token_ids must be a list of token ids")
    return ends


def _choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": reason}


async def _chain(first: Piece, rest: Pieces) -> Pieces:
    async with contextlib.aclosing(rest):
        yield first
        if first.finish_reason is None:
            async for piece in rest:
                yield piece
