"""Serving: many requests together against one after the other, and a switch against a restart.

One vLLM server with a demo model. The requests are the same in both ways, rounds alternate. A
switch puts another demo model's weights into the running engine and checks their digest; a restart
ends the engine and starts it again.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.contestants import ROOT
from bench.errors import BenchError
from studio.serve.batch import Request, complete_all
from studio.serve.engine import Engine
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
from studio.serve.sampling import Sampling

MODELS = ROOT / "demo" / "models"
FIRST, OTHER = "roleplay", "story"
REQUESTS, TOKENS = 64, 48
START_SECONDS = 400.0


@dataclass(frozen=True)
class Serving:
    """Medians over rounds: tokens per second, and seconds for another model."""

    requests: int
    tokens: int
    together: float
    one_by_one: float
    switch_seconds: float
    restart_seconds: float
    weight_bytes: int

    @property
    def ratio(self) -> float:
        """How many times faster requests are together."""
        return self.together / self.one_by_one


def serving(rounds: int) -> Serving:
    """Start the server, measure, end it. Raises BenchError where vLLM cannot be started."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        try:
            name = _start(fleet, FIRST)
            with closing(fleet.engine(name)) as engine:
                speeds = _speeds(engine, rounds)
            switches = [
                _seconds(lambda model=model: _switch(fleet, name, model))
                for _ in range(rounds)
                for model in (OTHER, FIRST)
            ]
            restart = _seconds(lambda: _stop_and_start(fleet, name, OTHER))
        finally:
            fleet.close()
    return Serving(
        requests=REQUESTS,
        tokens=TOKENS,
        together=median(speed for speed, _ in speeds),
        one_by_one=median(speed for _, speed in speeds),
        switch_seconds=median(switches),
        restart_seconds=restart,
        weight_bytes=(MODELS / OTHER / "model.safetensors").stat().st_size,
    )


def serving_text(found: Serving) -> str:
    """What was measured, for a terminal."""
    return "\n".join(
        [
            f"serve: vLLM, a demo model of {found.weight_bytes / 1e6:.1f} MB, float32",
            f"  {found.requests} requests of at most {found.tokens} tokens together: "
            f"{found.together:.0f} tokens/s; one by one {found.one_by_one:.0f} tokens/s: "
            f"{found.ratio:.1f} times faster",
            f"  another model by a switch in place: {found.switch_seconds:.2f} s; by a restart "
            f"{found.restart_seconds:.1f} s: {found.restart_seconds / found.switch_seconds:.0f} "
            "times faster",
        ]
    )


def serving_data(found: Serving) -> dict[str, float]:
    """The same for JSON."""
    return asdict(found) | {"ratio": found.ratio}


def _ready(fleet: Fleet, name: str) -> None:
    state = fleet.wait(name, ("ready", "failed", "stopped"), START_SECONDS)
    if state.phase != "ready":
        raise BenchError(f"the server did not start: {state.problem or state.phase}")


def _start(fleet: Fleet, model: str) -> str:
    name = fleet.start(ModelSpec(model=str(MODELS / model), engine="vllm", dtype="float32"))
    _ready(fleet, name)
    return name


def _stop_and_start(fleet: Fleet, name: str, model: str) -> None:
    fleet.stop(name)
    fleet.wait(name, ("stopped", "failed"), START_SECONDS)
    _start(fleet, model)


def _switch(fleet: Fleet, name: str, model: str) -> None:
    fleet.switch(name, str(MODELS / model), model)
    _ready(fleet, name)
    state = fleet.state(name)
    if state.identity is None or state.identity.label != model:
        raise BenchError(f"the switch to {model} failed: {state.problem}")


def _requests(round_: int) -> list[Request]:
    """Prompts that no earlier round has put into a cache."""
    return [
        Request(
            f"Guest {round_}: Tell me about {number} lanterns.\nHost:",
            Sampling(temperature=1.0, min_p=0.02, max_tokens=TOKENS, seed=number),
        )
        for number in range(REQUESTS)
    ]


def _speeds(engine: Engine, rounds: int) -> list[tuple[float, float]]:
    """(together, one by one) of each round, in tokens per second; a round before does not count."""
    found = []
    for round_ in range(rounds + 1):
        together = _speed(engine, _requests(2 * round_), REQUESTS)
        one_by_one = _speed(engine, _requests(2 * round_ + 1), 1)
        found.append((together, one_by_one))
    return found[1:]


def _speed(engine: Engine, requests: list[Request], at_a_time: int) -> float:
    tokens = 0
    begin = time.perf_counter()
    for _, completion in complete_all(engine, requests, at_a_time=at_a_time):
        tokens += completion.completion_tokens
    return tokens / (time.perf_counter() - begin)


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
