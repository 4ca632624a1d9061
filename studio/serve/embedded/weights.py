"""Other weights for the embedded engine."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from studio.errors import StudioError
from studio.serve.checksum import checksum, compare, has_whole_words, sums_of_files
from studio.serve.embedded.model import Model
from studio.serve.kinship import differences
from studio.serve.switching import Loaded
from studio.weights import Checkpoint


class EmbeddedWeights:
    """The weights of the one process; see `switching.Weights`."""

    def __init__(self, model: Model, path: str, abort: Callable[[], None]) -> None:
        self._model = model
        self._path = path
        self._abort = abort
        self._loaded = found(model, Path(path))

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
            loaded = await asyncio.to_thread(found, self._model, Path(path))
        except (StudioError, OSError, ValueError, RuntimeError) as error:
            return Loaded(problem=f"{path}: the weights could not be read ({error})")
        if not loaded.problem:
            self._path, self._loaded = path, loaded
        return loaded

    async def state(self, path: str) -> Loaded:
        """What was found when they were read: nothing else writes into this process."""
        return self._loaded

    async def resume(self) -> None:
        """Nothing to do: the gate opens."""


def found(model: Model, path: Path) -> Loaded:
    """What the model holds, checked against the files in the folder."""
    start = time.perf_counter()
    checkpoint = Checkpoint.open(path, path.name)
    words = has_whole_words((info.shape for info in checkpoint.tensors.values()), 1)
    held = dict(model.parameters())
    dtypes = {name: held[name].dtype for name in checkpoint.tensors if name in held}
    comparison = compare(
        [{name: checksum(parameter, words=words) for name, parameter in held.items()}],
        sums_of_files(checkpoint, dtypes, "cpu", words=words),
        {},
    )
    if comparison.wrong:
        return Loaded(problem=f"it does not hold the files' weights: {comparison.wrong[:3]}")
    return Loaded(
        digests=(digest(model),),
        bytes_read=model.nbytes,
        verified=comparison.verified,
        digest=comparison.digest,
        seconds_verifying=round(time.perf_counter() - start, 4),
    )


def digest(model: Model) -> str:
    """A fast hash over the names and bytes of all parameters."""
    import torch
    import xxhash

    total = xxhash.xxh3_128()
    for name, parameter in model.parameters():
        total.update(name.encode())
        total.update(parameter.detach().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()
