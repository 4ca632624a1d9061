"""The control path of a vLLM server: which model is in it, and change that."""

import asyncio
import os
import secrets
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import State
from vllm.engine.protocol import EngineClient

from studio.errors import StudioError
from studio.serve.checksum import compare
from studio.serve.gate import MODEL_VARIABLE, Residency
from studio.serve.kinship import differences
from studio.serve.switching import Loaded, resident, sleep, switch, wake


class ControlPaths:
    """vLLM's endpoint plugin: routes that the gate lets through with the key only."""

    name = "studio_control"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the paths."""
        app.add_api_route("/v1/studio/resident", _resident, methods=["GET"])
        app.add_api_route("/v1/studio/switch", _switch, methods=["POST"])
        app.add_api_route("/v1/studio/sleep", _sleep, methods=["POST"])
        app.add_api_route("/v1/studio/wake", _wake, methods=["POST"])

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Note the model the server was started with."""
        state.residency = Residency(os.environ[MODEL_VARIABLE], args.model)
        ranks = args.tensor_parallel_size * args.pipeline_parallel_size
        weights = state.studio_weights = VllmWeights(engine_client, state.residency, ranks)
        weights.can_sleep = bool(args.enable_sleep_mode)


async def _resident(request: Request) -> JSONResponse:
    """Which model is in the engine, with the digest of each rank's weights."""
    state = request.app.state
    return JSONResponse(await resident(state.residency, state.studio_weights))


async def _switch(request: Request) -> JSONResponse:
    state = request.app.state
    body = await request.json()
    model, path = str(body["model"]), str(body["path"])
    done = await asyncio.shield(switch(state.residency, state.studio_weights, model, path))
    return JSONResponse(done.as_data())


async def _sleep(request: Request) -> JSONResponse:
    state = request.app.state
    done = await asyncio.shield(sleep(state.residency, state.studio_weights))
    return JSONResponse(done.as_data())


async def _wake(request: Request) -> JSONResponse:
    state = request.app.state
    done = await asyncio.shield(wake(state.residency, state.studio_weights))
    return JSONResponse(done.as_data())


class VllmWeights:
    """The weights on all ranks of this server; see `switching.Weights`."""

    def __init__(self, client: Any, residency: Residency, ranks: int) -> None:
        self._client = client
        self._ranks = ranks
        self._residency = residency
        self.can_sleep = False

    async def refusal(self, path: str) -> str:
        """Why the model cannot take the place of the present one."""
        try:
            found = await asyncio.to_thread(differences, Path(self._residency.path), Path(path))
        except StudioError as error:
            return str(error)
        return "; ".join(found)

    async def pause(self) -> None:
        """End what runs, hold what comes, forget cached prefixes."""
        await self._client.pause_generation(mode="abort", clear_cache=True)

    async def load(self, path: str) -> Loaded:
        """Load on every rank, then compare what they hold with the files."""
        nonce = secrets.token_hex(8)
        replies = await self._client.collective_rpc("studio_load", args=(path, nonce))
        if problem := _problem(replies, nonce):
            return Loaded(problem=problem)
        return await self.state(path)

    async def resume(self) -> None:
        """Answer again."""
        await self._client.resume_generation()

    async def sleep(self) -> str:
        """Give up all GPU memory; without the flag vLLM would pause and free nothing."""
        if not self.can_sleep:
            return "this engine cannot sleep: vLLM can on GPUs only"
        try:
            await self._client.sleep(level=2)
        except Exception as error:  # the engine's own; told, and the model stays shut or comes back
            return f"{type(error).__name__}: {error}"
        return ""

    async def wake(self, part: str) -> str:
        """Take the memory of a part again."""
        try:
            await self._client.wake_up(tags=[part])
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    async def state(self, path: str) -> Loaded:
        """What the ranks hold, checked against the model in the folder."""
        nonce = secrets.token_hex(8)
        arguments = (path, nonce, self._ranks)
        start = time.perf_counter()
        held = await self._client.collective_rpc("studio_state", args=arguments)
        if problem := _problem(held, nonce):
            return Loaded(problem=problem)
        found = compare(
            [reply["held"] for reply in held],
            {name: entry for reply in held for name, entry in reply["files"].items()},
            held[0]["fused"],
        )
        if found.wrong:
            return Loaded(problem=f"the engine does not hold the files' weights: {found.wrong[:3]}")
        return Loaded(
            digests=tuple(reply["digest"] for reply in held),
            bytes_read=sum(reply["nbytes"] for reply in held),
            verified=found.verified,
            digest=found.digest,
            seconds_verifying=round(time.perf_counter() - start, 4),
        )


def _problem(replies: list[dict[str, Any]], nonce: str) -> str:
    """What is wrong with the ranks' replies; a stale one means that the queue is out of step."""
    stale = [reply.get("rank") for reply in replies if reply.get("nonce") != nonce]
    if stale:
        return f"ranks {stale} answered another call; restart the engine"
    return "; ".join(f"rank {r['rank']}: {r['problem']}" for r in replies if r["problem"])
