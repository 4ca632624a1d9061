"""One engine, several models: the weights are changed in place, and nothing wrong ever answers.

Runs in the process of the engine's server, the same for vLLM and for the embedded engine.
"""

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from studio.serve.gate import Residency

PATIENCE_SECONDS = 10.0  # for a client to take the end of its aborted answer
DRAIN_SECONDS = 30.0
POLL_SECONDS = 0.05, 1.0  # at first, and in the end: every look pauses the engine anew
STUCK = f"running answers did not end within {DRAIN_SECONDS:g} s; try again, or restart the engine"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading weights on every rank.

    `problem` is empty if all ranks hold exactly this model; `digests` has one for each rank, of
    the bytes as they now lie there. `bytes_read` adds up what the ranks hold; `verified` says how
    much of it was compared with the files, and `digest` is of the whole model's weights, empty
    unless all of it was (see checksum.Comparison).
    """

    problem: str = ""
    digests: tuple[str, ...] = ()
    bytes_read: int = 0
    verified: str = ""
    digest: str = ""
    seconds_verifying: float = 0.0


class Weights(Protocol):
    """What can be done with the weights of a running engine. None of these raises."""

    async def refusal(self, path: str) -> str:
        """Why the model in the folder cannot take the place of the present one; or empty."""
        ...

    async def pause(self) -> None:
        """End what is under way with "abort", begin nothing new, forget cached prefixes."""
        ...

    async def load(self, path: str) -> Loaded:
        """Put the model's weights in place of the present ones."""
        ...

    async def state(self, path: str) -> Loaded:
        """What the engine holds, which should be the model in the folder."""
        ...

    async def resume(self) -> None:
        """Answer again."""
        ...


class Sleeper(Weights, Protocol):
    """Weights that can give their memory back for a while. None of these raises."""

    async def sleep(self) -> str:
        """Give the GPUs' memory back, the weights too; what went wrong, or empty."""
        ...

    async def wake(self, part: str) -> str:
        """Take the memory of the "weights" or the "kv_cache" again; what went wrong, or empty."""
        ...


@dataclass(frozen=True, slots=True)
class Switched:
    """The end of a switch: `model` is resident now (None: nothing answers any more)."""

    model: str | None
    ok: bool
    problem: str = ""
    digests: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    verified: str = ""
    digest: str = ""

    def as_data(self) -> dict[str, Any]:
        """The same for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


async def switch(residency: Residency, weights: Weights, model: str, path: str) -> Switched:
    """Make the model in the folder `path` the resident one, under the id `model`.

    While it lasts, and if it ends badly, no request is answered. If the new weights cannot be
    loaded the previous ones are put back; if that fails too, the engine stays shut.
    """
    async with residency.lock:
        if residency.model is None:
            return Switched(None, ok=False, problem="no model is awake in the engine")
        if refusal := await weights.refusal(path):
            return Switched(residency.model, ok=False, problem=refusal)
        before, residency.model = residency.model, None
        clock = _Clock()
        if not await _drain(residency, weights):
            await weights.resume()
            residency.model = before
            return Switched(before, ok=False, problem=STUCK)
        clock.lap("pause")
        loaded = await weights.load(path)
        clock.lap("load")
        clock.take("verify", "load", loaded.seconds_verifying)
        if loaded.problem:
            problem = loaded.problem
            back = await weights.load(residency.path)
            clock.lap("back")
            if back.problem:
                problem += f"; and the previous model could not be put back: {back.problem}"
                return Switched(None, ok=False, problem=problem, seconds=clock.laps)
            await weights.resume()
            residency.model = before
            return Switched(before, ok=False, problem=problem, seconds=clock.laps)
        await weights.resume()
        residency.model, residency.path = model, path
        clock.lap("resume")
        return _done(model, loaded, clock)


async def sleep(residency: Residency, weights: Sleeper) -> Switched:
    """Give the memory of the GPUs back, until `wake`; nothing is answered meanwhile."""
    async with residency.lock:
        before, residency.model = residency.model, None
        if before is None:
            return Switched(None, ok=False, problem="no model is awake in the engine")
        clock = _Clock()
        problem = "" if await _drain(residency, weights) else STUCK
        clock.lap("pause")
        problem = problem or await weights.sleep()
        clock.lap("sleep")
        if problem:
            await weights.resume()
            residency.model = before
            return Switched(before, ok=False, problem=problem, seconds=clock.laps)
        residency.sleeping = before
        return Switched(None, ok=True, seconds=clock.laps)


async def wake(residency: Residency, weights: Sleeper) -> Switched:
    """Take the memory again and read the weights anew, checked like those of a switch."""
    async with residency.lock:
        if residency.sleeping is None:
            return Switched(residency.model, ok=False, problem="the engine does not sleep")
        clock = _Clock()
        problem, loaded = await weights.wake("weights"), Loaded()
        if not problem:
            loaded = await weights.load(residency.path)
            problem = loaded.problem or await weights.wake("kv_cache")
        clock.lap("wake")
        if problem:
            return Switched(None, ok=False, problem=problem, seconds=clock.laps)
        await weights.resume()
        residency.model, residency.sleeping = residency.sleeping, None
        return _done(residency.model, loaded, clock)


async def resident(residency: Residency, weights: Weights) -> dict[str, Any]:
    """Which model is in the engine, and what its ranks were found to hold, for JSON.

    None, at once, while no model is known to be there: nobody who asks waits for a switch.
    """
    model, loaded = residency.model, Loaded()
    if model is not None:
        loaded = await weights.state(residency.path)
    if model is None or model != residency.model:  # a switch may have begun meanwhile
        model, loaded = None, Loaded(problem="the weights are being changed, or given up")
    return {"model": model, **asdict(loaded)}


def _done(model: str | None, loaded: Loaded, clock: "_Clock") -> Switched:
    return Switched(
        model, True, "", loaded.digests, clock.laps, loaded.bytes_read, loaded.verified,
        loaded.digest,
    )  # fmt: skip


async def _drain(residency: Residency, weights: Weights) -> bool:
    """Pause until nothing is under way: what slipped in after a pause is ended by the next one.

    An answer whose client does not take it is cut off. False: something did not end even so.
    """
    now = asyncio.get_running_loop().time
    begun, (wait, longest) = now(), POLL_SECONDS
    for deadline in residency.under_way:
        if not deadline.expired():
            deadline.reschedule(begun + PATIENCE_SECONDS)
    while True:
        await weights.pause()
        if not residency.under_way:
            return True
        if now() > begun + DRAIN_SECONDS:
            return False
        await asyncio.sleep(wait)
        wait = min(2 * wait, longest)


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def take(self, name: str, whole: str, seconds: float) -> None:
        """Of the lap `whole`, count so many seconds as `name`."""
        self.laps[name], self.laps[whole] = seconds, round(self.laps[whole] - seconds, 4)

    def lap(self, name: str) -> None:
        """Note the seconds since the last lap."""
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 4), now
