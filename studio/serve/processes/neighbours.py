"""Engines in the same folder that other processes of the studio keep: the Serve tab's, a command's.

They hold GPUs, and may be asked for the model that is in them; only their owner changes them.
"""

from collections.abc import Container
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2

from studio.errors import StudioError
from studio.serve.endpoint import Endpoint
from studio.serve.engine import Identity
from studio.serve.processes.model_files import ModelFiles, identity_of
from studio.serve.processes.proc_table import is_alive
from studio.serve.processes.process import EngineProcess, found, noted
from studio.serve.processes.remote import model_there
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.vllm_command import SERVED_NAME
from studio.serve.sampling import Sampling
from studio.weights.strict_json import read_object

_TRIAL = Sampling(temperature=0.0, max_tokens=1)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An engine of another process.

    `owner`: the number of that process. `process` is None while the engine is being started.
    `is_ready`: its owner found that it answers, and holds the weights that its files hold.
    """

    id: str
    spec: ModelSpec
    owner: int
    process: EngineProcess | None = None
    dtype: str = "auto"
    is_ready: bool = False

    def holds(self, spec: ModelSpec, wanted: Identity, files: ModelFiles) -> bool:
        """Whether it holds the model just as an engine made for `spec` would, with as much room."""
        if self.process is None or not self.is_ready:
            return False
        held = identity_of(replace(self.spec, dtype=self.dtype, label=wanted.label), files)
        is_same = self.process.place.model_id == files.fingerprint and held == wanted
        return is_same and _room(self.spec, files) >= _room(spec, files)


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A neighbour's engine, to be asked for the one model that is in it, in `folder`.

    Its requests fail once its owner stops it or puts another model in. `room`: tokens of prompt
    and answer together, None where it does not say.
    """

    engine: Endpoint
    folder: Path
    room: int | None
    owner: int


def neighbours(folder: Path, own: Container[str]) -> list[Neighbour]:
    """The engines in the folder that run, or are being started, without those in `own`."""
    found = [_neighbour(each) for each in sorted(folder.iterdir()) if each.name not in own]
    return [each for each in found if each is not None]


def borrow(neighbour: Neighbour, wanted: Identity, files: ModelFiles) -> Borrowed | None:
    """The neighbour's engine, if it answers for this model now."""
    assert neighbour.process is not None
    address = neighbour.process.address
    engine = Endpoint(
        address, wanted, name=SERVED_NAME, resident=files.fingerprint, tokens=files.tokens
    )
    try:
        engine.complete("Hello", _TRIAL)
        with closing(address.client()) as client:
            _, room = model_there(client, SERVED_NAME)
    except (StudioError, httpx2.HTTPError):  # it is being changed or stopped: then ours is started
        engine.close()
        return None
    return Borrowed(engine, files.path, room, neighbour.owner)


def _neighbour(folder: Path) -> Neighbour | None:
    note = noted(folder)
    if note is None:
        return None
    spec, owner = ModelSpec.from_data(note["spec"]), note["owner"]
    if "pid" not in note:
        return Neighbour(folder.name, spec, owner[0]) if is_alive(*owner) else None
    process, _ = found(folder)
    if process.exit_code() is not None:
        return None
    is_ready = note.get("ready") is True
    return Neighbour(folder.name, spec, owner[0], process, note["dtype"], is_ready)


def _room(spec: ModelSpec, files: ModelFiles) -> int:
    """Tokens of prompt and answer together; 0 where neither the spec nor the model says."""
    own = read_object(files.path / "config.json").get("max_position_embeddings")
    return spec.max_model_len or (own if type(own) is int else 0)
