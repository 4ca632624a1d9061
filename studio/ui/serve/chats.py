"""Small conversations with running engines, kept on the server: every page sees the same one."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from studio.errors import StudioError
from studio.serve.engine import Piece, Prompt
from studio.serve.sampling import Sampling
from studio.ui.access import MISTAKE

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 100_000
MOST_MESSAGES = 200
Role = Literal["system", "user", "assistant"]


class Streams(Protocol):
    """What of an engine is needed here."""

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Piece]:
        """The answer as it is made."""
        ...

    def close(self) -> None:
        """Let go of its connections."""
        ...


@dataclass(slots=True)
class Message:
    """One turn. Of an answer also who gave it, how many tokens, how long, and how it ended."""

    role: Role
    text: str
    model: str = ""
    tokens: int = 0
    seconds: float = 0.0
    finish: str = ""
    error: str = ""


@dataclass(slots=True)
class Chat:
    """A conversation and the answer under way in it, if any; `version` grows with every change."""

    messages: list[Message] = field(default_factory=list)
    system: str = ""
    version: int = 0
    is_answering: bool = False
    is_to_stop: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """How an answer is to be made: the engine, its model's name, the sampling, and a function that
    writes the conversation as a prompt. The engine is closed once the answer has ended.
    """

    engine: Streams
    model: str
    sampling: Sampling
    write: Callable[[list[dict[str, str]]], Prompt]


class Chats:
    """The conversation with each engine, by the engine's id."""

    def __init__(self) -> None:
        self._chats: dict[str, Chat] = {}
        self._lock = threading.Lock()

    def state(self, name: str) -> dict[str, Any]:
        """The conversation as it stands."""
        with self._lock:
            chat = self._chats.get(name, Chat())
            return {
                "version": chat.version,
                "answering": chat.is_answering,
                "system": chat.system,
                "messages": [_data(message) for message in chat.messages],
            }

    def say(self, name: str, text: object, system: object, turn: Turn) -> None:
        """Add a message and begin to answer it; raises StudioError if that cannot be.

        An empty `text` asks for another answer to the last message.
        """
        if not isinstance(text, str) or not isinstance(system, str):
            raise StudioError("a message is text")
        if len(text) > LONGEST_MESSAGE or len(system) > LONGEST_MESSAGE:
            raise StudioError(f"a message has at most {LONGEST_MESSAGE:,} characters")
        with self._lock:
            chat = self._chats.setdefault(name, Chat())
            if chat.is_answering:
                raise StudioError("an answer is under way; wait for it, or stop it")
            if len(chat.messages) >= MOST_MESSAGES:
                raise StudioError("this conversation is very long; clear it to begin another")
            turns = list(chat.messages)
            if not text.strip() and turns:
                turns.pop()  # the answer that is to be made anew
            elif text.strip():
                if turns and not turns[-1].text:  # nothing came of the last turn
                    del turns[-2:]
                turns.append(Message("user", text))
            if not turns or turns[-1].role != "user":
                raise StudioError("the message is empty; write something")
            prompt = turn.write(_for_template(turns, system))  # before anything is changed
            answer = Message("assistant", "", model=turn.model)
            chat.messages, chat.system = [*turns, answer], system
            chat.is_answering, chat.is_to_stop = True, False
            chat.version += 1
        threading.Thread(
            target=self._answer, args=(chat, answer, turn, prompt), daemon=True
        ).start()

    def stop(self, name: str) -> None:
        """End the answer under way; what is there of it stays."""
        with self._lock:
            if chat := self._chats.get(name):
                chat.is_to_stop = True

    def clear(self, name: str) -> None:
        """Forget the conversation with an engine, ending an answer under way."""
        with self._lock:
            if chat := self._chats.pop(name, None):
                chat.is_to_stop = True
                self._chats[name] = Chat(system=chat.system, version=chat.version + 1)

    def _answer(self, chat: Chat, answer: Message, turn: Turn, prompt: Prompt) -> None:
        start = time.perf_counter()
        try:
            with closing(_closable(turn.engine.stream(prompt, turn.sampling))) as pieces:
                for piece in pieces:
                    with self._lock:
                        answer.text += piece.text
                        answer.tokens = piece.tokens
                        answer.seconds = time.perf_counter() - start
                        answer.finish = piece.finish_reason or ("stopped" * chat.is_to_stop)
                        chat.version += 1
                        if chat.is_to_stop:
                            break
        except StudioError as error:
            with self._lock:
                answer.error = str(error)
        except Exception:  # no one else sees this thread fail; the page waits for its answer
            log.exception("an answer failed")
            with self._lock:
                answer.error = MISTAKE
        finally:
            turn.engine.close()
            with self._lock:
                answer.seconds = time.perf_counter() - start
                chat.is_answering = False
                chat.version += 1


def _closable(pieces: Iterator[Piece]) -> Any:
    """The iterator as a generator, which can be closed: that ends the generation too."""
    yield from pieces


def _for_template(messages: list[Message], system: str) -> list[dict[str, str]]:
    """The conversation as templates take it; the system message first, if there is one."""
    first = [{"role": "system", "content": system}] if system.strip() else []
    return first + [{"role": each.role, "content": each.text.strip()} for each in messages]


def _data(message: Message) -> dict[str, Any]:
    return {
        "role": message.role,
        "text": message.text if message.role == "user" else message.text.lstrip(),
        "model": message.model,
        "tokens": message.tokens,
        "seconds": round(message.seconds, 2),
        "finish": message.finish,
        "error": message.error,
    }
