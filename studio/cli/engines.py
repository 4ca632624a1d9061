"""Engines as commands use them: watched until they are ready, and one for many models in turn."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from studio.cli.speaking import EngineSpeaker, Start, format_of
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.arena.trials.design import Model
    from studio.serve.batch import Completions
    from studio.serve.engine import Engine, Identity
    from studio.serve.processes.fleet import Fleet
    from studio.serve.processes.log import Progress
    from studio.serve.processes.spec import ModelSpec
    from studio.serve.processes.state import EngineState

LOOK_SECONDS = 0.2
Say = Callable[[str], None]


def settled(fleet: "Fleet", name: str, say: Say) -> "EngineState":
    """The state of an engine once its start or switch is over; `say` is told how far it is."""
    told = _Told(fleet.state(name).spec.name, say)
    while (state := fleet.state(name)).phase in ("starting", "switching"):
        if state.phase == "starting":
            told.tell(state.progress)
        time.sleep(LOOK_SECONDS)
    return state


class _Told:
    """Says how far a start is, when that has changed; of a download, every ten percent."""

    def __init__(self, name: str, say: Say) -> None:
        self._name, self._say, self._said = name, say, ""

    def tell(self, now: "Progress") -> None:
        """Say it; the Hub's client shows bars of its own on a terminal."""
        from studio.serve.processes.log import DOWNLOADING

        done, total = f"{now.done}", f"{now.total}"
        if now.total and now.phase == DOWNLOADING:
            tenth = now.total / 10 * (10 * now.done // now.total)
            done, total = f"{tenth / 1e9:.2f}", f"{now.total / 1e9:.2f} GB"
        line = f"{now.phase} {done} of {total}" if now.total else now.phase
        if line != self._said and not (now.phase == DOWNLOADING and sys.stderr.isatty()):
            self._say(f"{self._name}: {line}")
            self._said = line


def ready(fleet: "Fleet", name: str, say: Say) -> "EngineState":
    """The same for an engine that has to be ready; raises StudioError with the reason if not."""
    state = settled(fleet, name, say)
    if state.phase != "ready":
        raise StudioError(reason(state))
    return state


def reason(state: "EngineState") -> str:
    """Why an engine does not run, naming its model once."""
    name, problem = state.spec.name, state.problem or state.phase
    is_named = problem.startswith((name, f"{state.spec.model}: "))
    return problem if is_named else f"{name}: {problem}"


class Turns:
    """The models of a trial in turn, each in one engine: the weights of the next are put in place
    of the last one's where they can be, and an engine of its own is started where not.

    Where another process of the studio has an engine with the very model, as the Serve tab may,
    that one is asked. Each model is held as it would be in an engine of its own, so that its
    answers do not depend on who had the turn before. `say` is told what happens, line by line.
    """

    def __init__(self, fleet: "Fleet", start: Start, kept: "Completions", say: Say) -> None:
        self._fleet, self._start, self._kept, self._say = fleet, start, kept, say
        self._engine: str | None = None
        self._held: dict[str, tuple[str, str]] = {}

    def arranged(self, models: "Sequence[Model]") -> "list[Model]":
        """The models in an order in which those of one kind follow each other.

        Raises StudioError, before anything is started, if others hold the GPUs they need.
        """
        from studio.serve.kinship import kind
        from studio.serve.planning.models import config_folder, is_here

        kinds: dict[str, list[Model]] = {}
        for model in models:
            spec = self._start.spec(model)
            is_known = spec.engine != "endpoint" and is_here(spec.model)
            folder = config_folder(spec.model) if is_known else None
            kinds.setdefault(kind(folder) if folder else model.label, []).append(model)
            if is_known and (lent := self._fleet.borrow(spec)):
                lent.engine.close()
            else:
                self._fleet.placed(spec)
        return [model for group in kinds.values() for model in group]

    @contextmanager
    def turn(self, model: "Model") -> Iterator[EngineSpeaker]:
        """The model, ready to answer; raises StudioError if it cannot be made so.

        It stays in its engine afterwards, for the next one to take its place.
        """
        spec = self._start.spec(model)
        self._download(spec)
        if lent := self._fleet.borrow(spec):
            self._say(f"{spec.name}: is asked in the engine of process {lent.owner}, which has it")
            with closing(lent.engine):
                yield self._speaker(model, lent.engine, lent.folder, lent.room)
            return
        state = self._switched(spec) or self._started(spec)
        folder = Path(state.model_path) if state.model_path else None
        with closing(self._fleet.engine(state.id)) as engine:
            yield self._speaker(model, engine, folder, state.max_model_len)

    def _download(self, spec: "ModelSpec") -> None:
        from studio.serve.processes.log import DOWNLOADING, Progress

        told = _Told(spec.name, self._say)
        self._fleet.download(spec, lambda *count: told.tell(Progress(DOWNLOADING, *count)))

    def _speaker(
        self, model: "Model", engine: "Engine", folder: Path | None, room: int | None
    ) -> EngineSpeaker:
        from studio.serve.planning.quantisation import unlike

        used = format_of(model, folder, self._say)
        if engine.identity.dtype is not None:
            held = engine.identity.dtype, engine.identity.quantisation or "none"
            if warning := unlike(self._held | {model.label: held}):
                self._say(f"note: {warning}")
            self._held[model.label] = held
        return EngineSpeaker(engine, used, folder, room, self._kept)

    def _switched(self, spec: "ModelSpec") -> "EngineState | None":
        """The engine with this model's weights in place of the last one's; None if that cannot be.

        Whatever comes of it, the engine answers only for the model it says it has: a request says
        for which one it is meant.
        """
        if self._engine is None or not self._is_alike(self._fleet.state(self._engine), spec):
            return None
        self._say(f"{spec.name}: its weights take the place of the last model's")
        self._fleet.switch(self._engine, spec.model, spec.label)
        state = settled(self._fleet, self._engine, self._say)
        if state.phase == "ready" and not state.problem and state.spec.model == spec.model:
            return state
        self._say(f"{spec.name}: gets an engine of its own ({state.problem or state.phase})")
        return None

    def _is_alike(self, state: "EngineState", spec: "ModelSpec") -> bool:
        """Whether the model would be held in this engine as in one of its own."""
        if state.phase != "ready" or not state.can_switch or state.spec.engine != spec.engine:
            return False
        assert state.identity is not None
        return _held(self._fleet.identity(spec)) == _held(state.identity)

    def _started(self, spec: "ModelSpec") -> "EngineState":
        if self._engine is not None:  # it must be gone first: its memory is needed
            self._fleet.stop(self._engine)
            self._fleet.wait(self._engine, ("stopped", "failed"))
        is_elsewhere = spec.engine == "endpoint"
        told = f"is asked at {spec.url}" if is_elsewhere else "an engine is started for it"
        self._say(f"{spec.name}: {told}")
        self._engine = self._fleet.start(self._fleet.placed(spec))
        return ready(self._fleet, self._engine, self._say)


def _held(identity: "Identity") -> "Identity":
    """How a model is held, whichever it is."""
    return dataclasses.replace(identity, label="", fingerprint=None, ends=())
