"""Other weights for the embedded engine."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from studio.errors import StudioError
from studio.serve.embedded.model import Model
from studio.serve.kinship import differences
from studio.serve.switching import Loaded


class EmbeddedWeights:
    """The weights of the one process; see `switching.Weights`."""

    def __init__(self, model: Model, path: str, abort: Callable[[], None]) -> None:
        self._model = model
        self._path = path
        self._abort = abort
        self.digests = (digest(model),)

    async def refusal(self, path: str) -> str:
        """Why the model cannot take the place of the present one."""
        try:
            found = await asyncio.to_thread(differences, Path(self._path), Path(path))
        except StudioError as error:
            return str(error)
        return "; ".join(found)

    async def pause(self) -> None:
        """End the answers; new ones are held off by the gate."""
        self._abort()

    async def load(self, path: str) -> Loaded:
        """Read the model beside the present one, then take it."""
        try:
            await asyncio.to_thread(self._model.switch, Path(path))
        except (StudioError, OSError, ValueError, RuntimeError) as error:
            return Loaded(problem=f"{path}: the weights could not be read ({error})")
        self._path = path
        self.digests = (await asyncio.to_thread(digest, self._model),)
        return Loaded(digests=self.digests, bytes_read=self._model.nbytes)

    async def resume(self) -> None:
        """Nothing to do: the gate opens."""


def digest(model: Model) -> str:
    """A fast hash over the names and bytes of all parameters."""
    import torch
    import xxhash

    total = xxhash.xxh3_128()
    for name, parameter in model.parameters():
        total.update(name.encode())
        total.update(parameter.detach().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()
