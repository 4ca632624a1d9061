"""Changing the weights of a running engine, and putting them to sleep: the studio's side."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from studio.errors import StudioError
from studio.serve.engine import EngineGone
from studio.serve.processes.board import Board
from studio.serve.processes.control import Control
from studio.serve.processes.log import DOWNLOADING, Progress
from studio.serve.processes.model_files import ModelFiles, check_exchange, identity_of, model_files
from studio.serve.processes.process import EngineProcess
from studio.serve.processes.spec import ModelSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exchange:
    """One engine whose weights may be changed; how it goes, the board tells.

    `settle` is told of the files that are in the engine from then on, `break_off` that the weights
    are in no known state: then nothing but a restart helps.
    """

    board: Board
    process: EngineProcess
    control: Control
    settle: Callable[[ModelFiles], None]
    break_off: Callable[[str], None]

    def switch(self, model: str, label: str) -> None:
        """Begin to put another model's weights in place of the present ones."""
        state = self.board.state
        if not state.can_switch:
            raise StudioError(f"{state.spec.name}: its weights cannot be changed in place")
        spec = replace(state.spec, model=model, label=label)
        self._begin(("ready",), f"changing to {spec.name}")
        self._in_background(lambda: self._switch(spec))

    def sleep(self) -> None:
        """Begin to give the GPUs' memory back; the engine stays, without weights."""
        state = self.board.state
        if not state.can_sleep:
            raise StudioError(
                f"{state.spec.name}: it cannot sleep; vLLM can on GPUs, with weights that can be "
                "changed in place: stop it instead"
            )
        self._begin(("ready",), "going to sleep")
        self._in_background(lambda: self._rest(self.control.sleep()))

    def wake(self) -> None:
        """Begin to read the weights again."""
        self._begin(("asleep",), "waking up")
        self._in_background(lambda: self._rest(self.control.wake()))

    def _begin(self, before: tuple[Any, ...], what: str) -> None:
        now = Progress(what)
        if not self.board.move(before, "switching", problem="", line="", progress=now):
            state = self.board.state
            raise StudioError(f"{state.spec.name}: the engine is {state.phase}, not {before[0]}")

    def _in_background(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except EngineGone as error:
                self.board.note(problem=str(error))  # the watching thread finds out why
            except StudioError as error:
                self.board.move(("switching",), "ready", problem=str(error))
            except Exception as error:  # a bug of ours must not leave it switching for ever
                log.exception("a change of weights failed")
                self.break_off(f"the studio failed while it changed the weights: {error!r}")

        threading.Thread(target=run, daemon=True).start()

    def _switch(self, spec: ModelSpec) -> None:
        check_exchange(spec)
        what = self.board.state.progress
        files = model_files(spec.model, self._tell_download)
        self.board.note(progress=what)
        done = self.control.switch(files)
        if done["ok"]:
            self._settle(spec, files, done)
        else:
            self._stay(done)

    def _tell_download(self, done: int, total: int) -> None:
        state = self.board.state
        if state.phase != "switching":  # stopped, or ended by itself
            raise StudioError(f"{state.spec.name}: the engine is {state.phase}")
        self.board.note(progress=Progress(DOWNLOADING, done, total))

    def _rest(self, done: dict[str, Any]) -> None:
        if done["ok"]:
            phase = "asleep" if done["model"] is None else "ready"
            self.board.move(("switching",), phase, switch=done)  # type: ignore[arg-type]
        else:
            self._stay(done)

    def _stay(self, done: dict[str, Any]) -> None:
        if done["model"] is None:
            self.break_off(f"the weights are in no known state: {done['problem']}")
            return
        problem = f"{self.board.state.spec.name} stays: {done['problem']}"
        self.board.move(("switching",), "ready", problem=problem)

    def _settle(self, spec: ModelSpec, files: ModelFiles, done: dict[str, Any]) -> None:
        """Another model is in the engine: say so, here and in the note for a later life."""
        before = self.board.state.identity
        assert before is not None and before.dtype is not None
        self.settle(files)
        place = replace(self.process.place, model_path=files.path, model_id=files.fingerprint)
        self.process.place = place
        self.process.note({"spec": spec.as_data(), "dtype": before.dtype, "ready": True})
        self.board.move(
            ("switching",),
            "ready",
            spec=spec,
            identity=identity_of(replace(spec, dtype=before.dtype), files),
            model_path=str(files.path),
            digests=tuple(done["digests"]),
            verified=done["verified"],
            digest=done["digest"],
            switch=done,
        )
