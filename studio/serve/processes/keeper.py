"""One engine's life: started, watched until it ends, its weights changed, stopped."""

import logging
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx2

from studio.errors import StudioError
from studio.serve.endpoint import Endpoint
from studio.serve.engine import EngineGone
from studio.serve.processes.board import Board
from studio.serve.processes.control import Control, Greeting
from studio.serve.processes.exchange import Exchange
from studio.serve.processes.log import DOWNLOADING, Progress, cause, progress, read
from studio.serve.processes.meter import Meter
from studio.serve.processes.model_files import (
    ModelFiles,
    check,
    identity_of,
    model_files,
    reloads_in_place,
    resolved_dtype,
)
from studio.serve.processes.process import EngineProcess, new_place
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import Phase
from studio.serve.processes.vllm_command import (
    SERVED_NAME,
    Machine,
    embedded_command,
    environment,
    vllm_command,
)

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
METER_SECONDS = 2.0
MINUTE = 60.0


class Keeper:
    """Keeps one engine that the studio started, or found running, in a thread of its own."""

    def __init__(self, board: Board, folder: Path, machine: Machine) -> None:
        self.board = board
        self._folder = folder
        self._machine = machine
        self._process: EngineProcess | None = None
        self._control: Control | None = None
        self._files: ModelFiles | None = None
        self._is_to_stop = threading.Event()
        self._is_let_go = False
        self._broken = ""
        self._thread = threading.Thread(target=self._live, daemon=True, name="engine")

    def start(self) -> None:
        """Begin; what comes of it, the board tells."""
        self._thread.start()

    def adopt(self, process: EngineProcess, dtype: str, note: str) -> None:
        """Keep an engine that runs already; raises StudioError if its model is gone."""
        spec, place = self.board.state.spec, process.place
        files = model_files(str(place.model_path))
        if files.fingerprint != place.model_id:
            raise StudioError(f"{spec.name}: the model's files were changed since it was started")
        self._process, self._files = process, files
        self._describe(replace(spec, dtype=dtype), files)
        self.board.note(note=note)
        self._thread.start()

    def stop(self, seconds: float = 60.0) -> None:
        """End the engine and all that belongs to it; returns when nothing is left."""
        self._is_to_stop.set()
        self.board.move(("starting", "ready", "switching", "asleep"), "stopping")
        if self._process is not None:
            self._process.ask_to_stop()
        self._thread.join(seconds)

    def let_go(self) -> None:
        """Stop watching and leave the engine running, for another life of the studio."""
        self._is_let_go = True
        self._is_to_stop.set()
        self._thread.join(MINUTE)

    def engine(self) -> Endpoint:
        """The model that is in the engine now; raises StudioError while there is none."""
        state, process, files = self.board.state, self._process, self._files
        if state.phase != "ready" or process is None or files is None:
            raise StudioError(
                f"{state.spec.name}: the engine is {state.phase}"
                + (f" ({state.problem})" if state.problem else "")
                + "; start it, or wait until it is ready"
            )
        assert state.identity is not None
        return Endpoint(
            process.address,
            state.identity,
            name=SERVED_NAME,
            resident=files.fingerprint,
            tokens=files.tokens,
        )

    def exchange(self) -> Exchange:
        """What can be done with the weights; raises StudioError while there is no engine."""
        state = self.board.state
        if state.phase not in ("ready", "asleep") or not self._process or not self._control:
            raise StudioError(f"{state.spec.name}: the engine is {state.phase}, not ready")
        return Exchange(self.board, self._process, self._control, self._settle, self._break)

    def _settle(self, files: ModelFiles) -> None:
        self._files = files

    def _break(self, problem: str) -> None:
        self._broken = problem

    def _live(self) -> None:
        try:
            if self._process is None:
                self._launch()
            self._become_ready()
            self._watch()
        except (_Ended, StudioError) as error:
            self._finish(str(error))
        except Exception as error:  # a bug of ours must not leave an engine without a keeper
            log.exception("the keeper of %s failed", self.board.state.id)
            self._finish(f"the studio failed while it kept the engine: {error!r}")

    def _launch(self) -> None:
        spec = self.board.state.spec
        self.board.note(progress=Progress("looking for the model"))
        check(spec)
        files = self._files = model_files(spec.model, self._tell_download)
        self._halt_if_asked()
        spec = replace(spec, dtype=resolved_dtype(spec, files, self._machine))
        place = new_place(self._folder, files.path, files.fingerprint, open_port=spec.open_port)
        command = (
            embedded_command(spec, place)
            if spec.engine == "embedded"
            else vllm_command(spec, place, self._machine, reloads=reloads_in_place(spec, files))
        )
        environ = environment(spec, place, self._machine, os.environ)
        record = {"spec": self.board.state.spec.as_data(), "dtype": spec.dtype}
        self._process = EngineProcess.spawn(place, command, environ, record, keep=spec.keep)
        self._describe(spec, files)
        if self._is_to_stop.is_set():
            self._process.ask_to_stop()

    def _tell_download(self, done: int, total: int) -> None:
        self._halt_if_asked()
        self.board.note(progress=Progress(DOWNLOADING, done, total))

    def _describe(self, spec: ModelSpec, files: ModelFiles) -> None:
        self.board.note(
            identity=identity_of(spec, files),
            model_path=str(files.path),
            can_switch=reloads_in_place(spec, files),
            can_sleep=self._machine.can_sleep and reloads_in_place(spec, files),
        )

    def _become_ready(self) -> None:
        """Wait until the engine answers, and let it answer once: the first time it compiles."""
        assert self._process is not None
        begun = time.monotonic()
        control = self._control = Control(self._process.address)
        looked = 0.0
        while not control.is_healthy():
            self._check_alive()
            if time.monotonic() - looked > 1:
                self.board.note(progress=progress(read(self._process.log)))
                looked = time.monotonic()
            self._is_to_stop.wait(LOOK_SECONDS)
        self.board.note(progress=replace(self.board.state.progress, phase="first words"))
        try:
            greeting = control.first_words(self.board.state.spec.name)
        except EngineGone:
            self._await_end()
            raise
        self._note_model(greeting, round(time.monotonic() - begun, 1))

    def _note_model(self, greeting: Greeting, seconds: float) -> None:
        assert self._process is not None
        if greeting.problem:
            raise StudioError(f"the weights are not what the files hold: {greeting.problem}")
        spec, identity = self.board.state.spec, self.board.state.identity
        assert identity is not None
        record = {"spec": spec.as_data(), "dtype": identity.dtype, "ready": True}
        self._process.note(record)
        port = self._process.place.port
        self.board.move(
            ("starting",),
            "ready",
            max_model_len=greeting.max_model_len,
            digests=greeting.digests,
            verified=greeting.verified,
            digest=greeting.digest,
            seconds_to_ready=seconds,
            url="" if port is None else f"http://127.0.0.1:{port}/v1",
            key=None if port is None else self._process.place.key,
        )

    def _watch(self) -> None:
        """Look at the engine until it ends."""
        assert self._process is not None and self._control is not None
        meter = Meter(self._control.client, self._process.log)
        looked = 0.0
        while True:
            self._check_alive()
            if time.monotonic() - looked > METER_SECONDS:
                looked = time.monotonic()
                try:
                    self.board.note(load=meter.read())
                except httpx2.HTTPError:
                    self.board.note(load=replace(self.board.state.load, tokens_per_second=None))
                self._stop_if_idle(meter)
            self._is_to_stop.wait(LOOK_SECONDS)

    def _stop_if_idle(self, meter: Meter) -> None:
        minutes = self.board.state.spec.idle_minutes
        if minutes is None or time.monotonic() - meter.last_use < minutes * MINUTE:
            return
        if self.board.move(("ready",), "stopping", note=f"stopped after {minutes:g} idle minutes"):
            self._is_to_stop.set()

    def _check_alive(self) -> None:
        """Raise _Ended if the engine ended or is to end."""
        self._halt_if_asked()
        if self._broken:
            raise StudioError(self._broken)
        if self._process is not None and self._process.exit_code() is not None:
            raise _Ended

    def _halt_if_asked(self) -> None:
        if self._is_to_stop.is_set():
            raise _Ended

    def _await_end(self) -> None:
        """An engine that broke off an answer ends within seconds; then its log has the reason."""
        end = time.monotonic() + 15
        while time.monotonic() < end:
            self._check_alive()
            time.sleep(LOOK_SECONDS)

    def _finish(self, problem: str = "") -> None:
        """Leave nothing behind, and write down how it ended."""
        asked, process = self._is_to_stop.is_set(), self._process
        if self._is_let_go:
            return
        line = ""
        if process is not None:
            code = process.exit_code()
            process.stop()
            if not asked and not problem:
                found = cause(read(process.log), code)
                problem, line = found.text, found.line
        else:
            shutil.rmtree(self._folder, ignore_errors=True)  # nothing was started: no claim either
        if self._control is not None:
            self._control.close()
        phase: Phase = "stopped" if asked else "failed"
        self.board.note(phase=phase, problem="" if asked else problem, line=line)


class _Ended(Exception):
    """The engine's processes ended, or have to."""
