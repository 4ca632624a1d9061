"""All engines of this machine: started, switched, stopped, and what an earlier life left behind."""

import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from studio.durable import locked
from studio.errors import StudioError
from studio.serve.endpoint import Endpoint
from studio.serve.engine import Identity
from studio.serve.planning.gpus import found_here
from studio.serve.planning.ways import beyond_cpu
from studio.serve.processes.board import Board
from studio.serve.processes.keeper import Keeper
from studio.serve.processes.log import tail
from studio.serve.processes.machine import has_vllm, this_machine
from studio.serve.processes.model_files import check, identity_of, model_files, resolved_dtype
from studio.serve.processes.neighbours import Borrowed, borrow, neighbours
from studio.serve.processes.proc_table import belonging, is_alive
from studio.serve.processes.process import LOG, EngineProcess, claim, found, noted, sweep
from studio.serve.processes.remote import Remote
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState, Phase
from studio.serve.processes.vllm_command import Machine
from studio.weights.download import OnBytes, download

log = logging.getLogger(__name__)

YOUNG_SECONDS = 60.0


class Fleet:
    """The engines of one process of the studio, each in a folder of its own below `folder`.

    Nothing here waits but `wait` and `close`: a start or a switch goes on in the background, and
    `snapshot` tells how far it is. `found` says what became of engines of an earlier life: those
    that were to be kept are adopted, others ended, and those of a process that still runs are
    left: they are neighbours. With `adopts` False those to be kept are neighbours too.
    """

    def __init__(
        self, folder: Path, machine: Machine | None = None, *, adopts: bool = True
    ) -> None:
        self.folder = folder.absolute()
        self._machine = machine or this_machine()
        self._adopts = adopts
        self._lock = threading.Lock()
        self._kept: dict[str, Keeper | Remote] = {}
        self._is_closed = False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.folder):
            folders = sorted(each for each in self.folder.iterdir() if each.is_dir())
            self.found = tuple(self._look_back(each) for each in folders)

    def start(self, spec: ModelSpec) -> str:
        """Begin to start an engine; its id. Raises StudioError if it cannot run here now."""
        with self._lock, locked(self.folder):
            if self._is_closed:
                raise StudioError("the studio is stopping; start it again to serve models")
            if spec.engine == "vllm" and not has_vllm():
                raise StudioError("vLLM is not installed; install it or use the embedded engine")
            self._check_machine(spec)
            name = f"{_slug(spec.name)}-{secrets.token_hex(3)}"
            self._begin(Board(EngineState(name, spec)))
            return name

    def stop(self, name: str) -> None:
        """Begin to end an engine and everything that belongs to it."""
        keeper = self._of(name)
        threading.Thread(target=keeper.stop, daemon=True).start()

    def restart(self, name: str) -> None:
        """Begin to end an engine, if it runs, and to start it again with the model it has now."""
        old = self._of(name)
        threading.Thread(target=self._restart, args=(name, old), daemon=True).start()

    def forget(self, name: str) -> None:
        """Take an engine that does not run off the list, its log too."""
        with self._lock:
            state = self._of(name).board.state
            if state.is_live:
                raise StudioError(f"{state.spec.name}: the engine is {state.phase}; stop it first")
            del self._kept[name]
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def switch(self, name: str, model: str, label: str = "") -> None:
        """Begin to change an engine's weights in place for those of another model.

        Raises StudioError if this engine cannot. A model of other shapes or another tokenizer is
        refused without touching anything: the state's `problem` tells why.
        """
        self._of(name).exchange().switch(model, label)

    def sleep(self, name: str) -> None:
        """Begin to give an engine's GPU memory back, for a merge say; it stays ready to wake."""
        self._of(name).exchange().sleep()

    def wake(self, name: str) -> None:
        """Begin to bring a sleeping engine's model back."""
        self._of(name).exchange().wake()

    def download(self, spec: ModelSpec, on_bytes: OnBytes) -> None:
        """Bring the model to this machine, if an engine here is to have it: see `download`.

        Raises StudioError, before any weights are fetched, if it could not be started so.
        """
        if spec.engine != "endpoint":
            check(spec)
            download(spec.model, on_bytes)

    def identity(self, spec: ModelSpec) -> Identity:
        """Who would answer if this were started; a model that is not here is downloaded.

        Raises StudioError if it cannot be started.
        """
        check(spec)
        files = model_files(spec.model)
        return identity_of(replace(spec, dtype=resolved_dtype(spec, files, self._machine)), files)

    def borrow(self, spec: ModelSpec) -> Borrowed | None:
        """A neighbour's engine that holds this model as one made for it would, None if none does.

        Raises StudioError if there is no such model.
        """
        if spec.engine == "endpoint" or not (found := neighbours(self.folder, self._kept)):
            return None
        wanted, files = self.identity(spec), model_files(spec.model)
        fitting = (each for each in found if each.holds(spec, wanted, files))
        return next((lent for each in fitting if (lent := borrow(each, wanted, files))), None)

    def placed(self, spec: ModelSpec) -> ModelSpec:
        """The spec on the first GPUs that nobody uses, or as it is where there are no GPUs.

        Raises StudioError if too few are free, naming who has the others, or if it cannot run here.
        """
        count = spec.tensor_parallel_size * spec.pipeline_parallel_size
        found = [gpu.index for gpu in found_here().gpus] if self._machine.has_gpu else []
        if not found or spec.gpus or spec.engine == "endpoint":
            self._check_machine(spec)
            return spec
        holders = list(self._holders())
        used = {index for _, held, _ in holders for index in held.gpus or found}
        if len(free := [index for index in found if index not in used]) < count:
            needed = f"{count} GPU{'s' * (count > 1)} needed"
            raise StudioError(
                f"{spec.name}: {needed}, {len(free)} of {len(found)} free; "
                + " and ".join(f"{held.name}{whose}" for _, held, whose in holders)
                + " must be stopped first"
                + ", or give it fewer" * (count > 1),
                {"in_the_way": [name for name, _, _ in holders]},
            )
        return replace(spec, gpus=tuple(free[:count]))

    def state(self, name: str) -> EngineState:
        """One engine as it stands."""
        return self._of(name).board.state

    def snapshot(self) -> list[EngineState]:
        """Every engine as it stands, in the order in which they were started."""
        return [keeper.board.state for keeper in list(self._kept.values())]

    def wait(self, name: str, phases: Sequence[Phase], seconds: float = 600.0) -> EngineState:
        """The state of an engine once it is in one of the phases, or when the time is over."""
        return self._of(name).board.wait(phases, seconds)

    def log(self, name: str, lines: int = 200) -> list[str]:
        """The last lines of an engine's log."""
        self._of(name)
        return tail(self.folder / name / LOG, lines)

    def engine(self, name: str) -> Endpoint:
        """The model that is in the engine now: once another one is, it answers no more."""
        return self._of(name).engine()

    def close(self) -> None:
        """End every engine but those that are to be kept; returns when they are gone."""
        with self._lock:
            self._is_closed = True
            kept = list(self._kept.values())
        threads = []
        for keeper in kept:
            ready = keeper.board.state.phase == "ready"
            let_go = keeper.board.state.spec.keep and ready
            end = keeper.let_go if let_go else keeper.stop
            threads.append(threading.Thread(target=end, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for state in self.snapshot():
            if state.phase == "stopped":  # a failed one's log may still be wanted
                shutil.rmtree(self.folder / state.id, ignore_errors=True)

    def _restart(self, name: str, old: Keeper | Remote) -> None:
        old.stop()
        with self._lock, locked(self.folder):
            if self._is_closed or self._kept.get(name) is not old:
                return
            try:
                self._check_machine(old.board.state.spec)
            except StudioError as error:
                old.board.note(phase="failed", problem=str(error))
                return
            old.board.reset()
            self._begin(old.board)

    def _begin(self, board: Board) -> None:
        state = board.state
        if state.spec.engine != "endpoint":
            claim(self.folder / state.id, state.spec.as_data())
        self._kept[state.id] = self._keep(board)
        self._kept[state.id].start()

    def _keep(self, board: Board) -> Keeper | Remote:
        if board.state.spec.engine == "endpoint":
            return Remote(board)
        return Keeper(board, self.folder / board.state.id, self._machine)

    def _of(self, name: str) -> Keeper | Remote:
        if name not in self._kept:
            raise StudioError(f'there is no engine "{name}"; it may have been taken off the list')
        return self._kept[name]

    def _check_machine(self, spec: ModelSpec) -> None:
        """Raise StudioError if it cannot run here, or two engines would fight for a GPU."""
        if spec.engine == "endpoint":
            return
        if not self._machine.has_gpu:
            if why := beyond_cpu(spec.pipeline_parallel_size, spec.quantisation or ""):
                raise StudioError(f"{spec.name}: {why}")
            return
        for name, held, whose in self._holders():
            shared = set(spec.gpus) & set(held.gpus)
            if shared or not spec.gpus or not held.gpus:
                which = f"GPU {min(shared)} is" if shared else "the GPUs are"
                raise StudioError(
                    f"{which} in use by {held.name}{whose}; give each engine GPUs of its own, stop "
                    "that one, or switch it to this model",
                    {"in_the_way": [name]},
                )

    def _holders(self) -> Iterator[tuple[str, ModelSpec, str]]:
        """Whoever holds GPUs: an engine's id, its spec, and whose it is if not of this process."""
        for state in self.snapshot():
            if state.is_live and state.spec.engine != "endpoint":
                yield state.id, state.spec, ""
        for each in neighbours(self.folder, self._kept):
            yield each.id, each.spec, f" (an engine of process {each.owner})"

    def _look_back(self, folder: Path) -> str:
        """Adopt or clean what lies in the folder of an engine; says which."""
        claimed = noted(folder)
        if claimed is not None and is_alive(*claimed["owner"]):
            return f"{folder.name}: left alone, it belongs to process {claimed['owner'][0]}"
        try:
            process, note = found(folder)
        except StudioError:
            return _clean_unknown(folder, is_claimed=claimed is not None)
        runs = process.exit_code() is None
        spec = ModelSpec.from_data(note["spec"])
        if runs and spec.keep and not self._adopts:
            return f"{folder.name}: left alone, it waits for the studio to adopt it"
        if runs and spec.keep:
            try:
                return self._adopt(folder, process, spec, note["dtype"])
            except StudioError as error:
                log.warning("%s: not adopted: %s", folder.name, error)
        members = len(belonging(process.log))
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)
        remains = f"{members} processes ended" if members else "nothing was running"
        return f"{folder.name}: cleaned, {remains}"

    def _adopt(self, folder: Path, process: EngineProcess, spec: ModelSpec, dtype: str) -> str:
        said = f"adopted, running since process {process.pid} started it"
        keeper = Keeper(Board(EngineState(folder.name, spec)), folder, self._machine)
        process.note({"spec": spec.as_data(), "dtype": dtype})
        keeper.adopt(process, dtype, "adopted from an earlier life of the studio")
        self._kept[folder.name] = keeper
        return f"{folder.name}: {said}"


def _clean_unknown(folder: Path, *, is_claimed: bool) -> str:
    """A folder that tells of no engine: one that is being made, or remains, as a dead claim is."""
    if not is_claimed and time.time() - folder.stat().st_mtime < YOUNG_SECONDS:
        return f"{folder.name}: left alone, it was made just now"
    members = sweep(folder / LOG)
    shutil.rmtree(folder, ignore_errors=True)
    return f"{folder.name}: cleaned, {members} processes ended"


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:40] or "engine"
