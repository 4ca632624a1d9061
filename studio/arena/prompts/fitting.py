"""Conversations that are longer than a model's context: what is left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studio.arena.prompts.prompt import Message, Prompt
from studio.errors import StudioError


@dataclass(frozen=True, slots=True)
class Fitted:
    """The messages that fit, and how many of the oldest were left out."""

    messages: tuple[Message, ...]
    left_out: int
    tokens: int


def fit(prompt: Prompt, room: int, count: Callable[[Sequence[Message]], int]) -> Fitted:
    """The latest messages of the prompt that, with its system message, take at most `room` tokens.

    `count` gives the tokens of messages with system message and format. The system message and
    the last message always stay; the rest goes from the oldest on, a request with its answer.
    Raises StudioError if even the last message alone takes more.
    """
    messages = prompt.messages
    # What is kept begins as the whole does, with a request or with a greeting.
    starts = [n for n in range(len(messages) - 1) if messages[n].role == messages[0].role]
    for start in sorted({*starts, len(messages) - 1}):
        tokens = count(messages[start:])
        if tokens <= room:
            return Fitted(messages[start:], start, tokens)
    raise StudioError(
        f'the prompt "{prompt.id}" takes {tokens:,} tokens even without its earlier messages, and '
        f"there is room for {room:,}; shorten it, or use a longer context"
    )
