"""An engine as it stands: what the page shows, and what others may ask of it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from studio.serve.engine import Identity
from studio.serve.processes.log import Progress
from studio.serve.processes.spec import ModelSpec

Phase = Literal["starting", "ready", "switching", "asleep", "stopping", "stopped", "failed"]
LIVE: frozenset[Phase] = frozenset({"starting", "ready", "switching", "asleep", "stopping"})


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine does now: tokens a second over the last seconds, requests, memory.

    `cache_usage` is the share of the cache of keys and values in use, 0 to 1; `memory_bytes` is
    the main memory of all its processes. None where the engine does not tell.
    """

    tokens_per_second: float | None = None
    running: int = 0
    waiting: int = 0
    cache_usage: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine of the fleet.

    `since`: when it came into this phase, in seconds since 1970. `problem`: why it failed, or why
    the last switch was refused; `line` is the line of the log that tells it. `url` and `key` are
    for other programs, where the engine listens on a port. `digests`: of each rank's bytes;
    `verified`: how many parameters were compared with the model's files; `digest`: of the whole
    model's weights in the engine's dtype, the same at every tensor parallel size, empty if not all
    was compared. `switch`: the last change of weights, with its seconds and bytes. `note`: what
    else to know ("adopted from …").
    """

    id: str
    spec: ModelSpec
    phase: Phase = "starting"
    since: float = 0.0
    identity: Identity | None = None
    progress: Progress = Progress()
    problem: str = ""
    line: str = ""
    model_path: str = ""
    max_model_len: int | None = None
    can_switch: bool = False
    can_sleep: bool = False
    digests: tuple[str, ...] = ()
    verified: str = ""
    digest: str = ""
    seconds_to_ready: float | None = None
    switch: dict[str, Any] | None = None
    load: Load = Load()
    url: str = ""
    key: str | None = None
    note: str = ""

    @property
    def is_live(self) -> bool:
        """Whether its processes run."""
        return self.phase in LIVE

    def as_data(self) -> dict[str, Any]:
        """Everything for JSON but the keys."""
        data = asdict(self) | {"digests": list(self.digests), "is_live": self.is_live}
        del data["key"]
        data["spec"] = self.spec.as_data()
        del data["spec"]["key"]
        return data
