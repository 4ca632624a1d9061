"""Many answers at an engine's full speed; each is made once, kept on disk, and found again.

A server like vLLM computes many requests together, if they come together: so they are sent from
as many threads as may be under way at a time. What comes back is kept by what it depends on: the
model's fingerprint and how it is held, the prompt as it was sent, the sampling with its seed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from studio.durable import append, json_line, json_records, locked
from studio.errors import StudioError
from studio.serve.engine import Completion, Engine, Identity, Prompt
from studio.serve.sampling import Sampling

FILE = "completions.jsonl"
AT_A_TIME = 64  # requests under way; vLLM takes 256 and more, and lets what is beyond wait


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, rendered, as text or token ids, and how to draw its answer."""

    prompt: Prompt
    sampling: Sampling


class Completions:
    """Completions that a folder keeps, in a file that only grows.

    Only those of models with a fingerprint are kept: behind a bare name another model may answer
    tomorrow.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        self._found = {
            str(record.pop("key")): Completion(**record) for record in json_records(self._path)
        }

    def get(self, identity: Identity, request: Request) -> Completion | None:
        """What this model answered to this request before; None if it did not."""
        return self._found.get(_key(identity, request)) if identity.fingerprint else None

    def add(self, identity: Identity, request: Request, completion: Completion) -> None:
        """Keep a completion; it is on disk when this returns."""
        if not identity.fingerprint:
            return
        key = _key(identity, request)
        with locked(self._path.parent):
            append(self._path, [json_line({"key": key, **asdict(completion)})])
        self._found[key] = completion


def complete_all(
    engine: Engine,
    requests: Sequence[Request],
    kept: Completions | None = None,
    *,
    at_a_time: int = AT_A_TIME,
) -> Iterator[tuple[int, Completion]]:
    """The answers as they come, each with its request's index: first those that are kept already.

    Each is kept before it is handed out, so the same call goes on where another was stopped.
    Closing the iterator, or an error, drops what has not begun and waits for what has. Raises
    StudioError for an answer that the engine broke off.
    """
    identity = engine.identity

    def make(request: Request) -> Completion:
        completion = engine.complete(request.prompt, request.sampling)
        if completion.finish_reason == "abort":
            raise StudioError(
                f"{identity.label}: the engine broke an answer off; run the same again to go on"
            )
        if kept:
            kept.add(identity, request, completion)
        return completion

    todo = []
    for index, request in enumerate(requests):
        if kept and (before := kept.get(identity, request)):
            yield index, before
        else:
            todo.append(index)
    pool = ThreadPoolExecutor(max(1, min(at_a_time, len(todo))), thread_name_prefix="complete")
    try:
        under_way = {pool.submit(make, requests[index]): index for index in todo}
        for future in as_completed(under_way):
            yield under_way[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _key(identity: Identity, request: Request) -> str:
    """What an answer depends on; the name that people gave to the model is not part of it."""
    prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    held = asdict(identity) | {"label": None}
    parts = json_line({**held, "prompt": prompt, "sampling": request.sampling.as_data()})
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
