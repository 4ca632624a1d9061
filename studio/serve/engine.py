"""What every engine is: something with a known model in it that continues a prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from studio.errors import StudioError
from studio.serve.sampling import Sampling

FinishReason = Literal["stop", "length", "abort"]
Prompt = str | Sequence[int]


class EngineGone(StudioError):
    """The engine ended, or was never reached: nothing is wrong with the request itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which model answers, and how it is held: answers of two identities may differ.

    `label` is what people call it. `fingerprint` is the checkpoint's (see studio.weights), None
    where the files are not here. `dtype` is what it computes in ("bfloat16"), `quantisation` how
    its weights and its cache are packed ("fp8_per_tensor, fp8 cache"), None if they are not.
    `engine` and `tensor_parallel_size` change the last bits of a number, and so, now and then, a
    token. `ends`: the ids of the tokens that end an answer, as the model's files tell.
    """

    label: str
    engine: str
    dtype: str | None = None
    quantisation: str | None = None
    fingerprint: str | None = None
    tensor_parallel_size: int = 1
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer: `text` to append (may be empty).

    `tokens` counts the answer's tokens so far, the end token too. `finish_reason` is None until
    the last piece: "stop" (end token or stop string), "length", or "abort" (the weights were
    about to change, or the engine to stop).
    """

    text: str
    tokens: int
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. Token counts include the begin and end tokens; `seconds` is wall time."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    seconds: float


class Engine(Protocol):
    """A running model. Safe to use from several threads at once.

    A prompt is whole and rendered. As text it gets the begin token that the model's tokenizer puts
    first, unless it begins with that already; as token ids it is taken as it is. Errors that the
    request can mend (a prompt that is too long) are StudioErrors; EngineGone means that there is
    no engine any more.
    """

    @property
    def identity(self) -> Identity:
        """The model that answers now."""
        ...

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Piece]:
        """The answer as it is made; the last piece has a finish_reason.

        Closing the iterator early ends the generation too.
        """
        ...

    def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The whole answer at once. The same seed gives the same answer on the same engine."""
        ...

    def logprobs(self, tokens: Sequence[int]) -> list[float | None]:
        """ln p of each token given those before it, unscaled by any sampling; first is None."""
        ...

    def close(self) -> None:
        """Let go of connections. The model itself is ended by whoever started it."""
        ...
