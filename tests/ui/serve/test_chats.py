"""Conversations with engines: what is sent, what is shown, and how an answer ends."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from studio.errors import StudioError
from studio.serve.engine import Piece, Prompt
from studio.serve.sampling import Sampling
from studio.ui.serve.chats import MOST_MESSAGES, Chats, Turn


class Scripted:
    """An engine that gives these pieces; it waits for `go` before each."""

    def __init__(self, *pieces: Piece | Exception) -> None:
        self.pieces = pieces
        self.go = threading.Semaphore(0)
        self.is_closed = False
        self.is_let_go = False
        self.prompts: list[Prompt] = []

    def close(self) -> None:
        self.is_let_go = True

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Piece]:
        self.prompts.append(prompt)
        try:
            for piece in self.pieces:
                self.go.acquire()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.is_closed = True


def turn(engine: Scripted) -> Turn:
    return Turn(
        engine, "m", Sampling(), lambda messages: repr([*map(list, map(dict.values, messages))])
    )


def until(chats: Chats, holds: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    end = time.monotonic() + 20
    while not holds(chats.state("e")):
        assert time.monotonic() < end, chats.state("e")
        time.sleep(0.005)
    return chats.state("e")


def done(state: dict[str, object]) -> bool:
    return state["answering"] is False


def answered(chats: Chats, text: str, reply: str) -> None:
    engine = Scripted(Piece(reply, 1, "stop"))
    engine.go.release()
    chats.say("e", text, "", turn(engine))
    until(chats, done)


def last(state: dict[str, object]) -> dict[str, object]:
    messages = state["messages"]
    assert isinstance(messages, list)
    found = messages[-1]
    assert isinstance(found, dict)
    return found


def test_an_answer_grows_and_every_look_sees_the_same() -> None:
    chats, engine = Chats(), Scripted(Piece(" Once", 1), Piece(" upon", 2, "stop"))
    chats.say("e", "Tell.", "Be brief.", turn(engine))
    assert chats.state("e")["answering"] is True
    engine.go.release()
    state = until(chats, lambda state: last(state)["tokens"] == 1)
    assert (last(state)["text"], last(state)["finish"]) == ("Once", "")
    engine.go.release()
    state = until(chats, done)
    assert engine.is_let_go
    assert (last(state)["text"], last(state)["finish"], last(state)["model"]) == (
        "Once upon", "stop", "m",
    )  # fmt: skip
    assert engine.prompts == ["[['system', 'Be brief.'], ['user', 'Tell.']]"]
    assert state == chats.state("e") and state["version"] != 0
    assert chats.state("another")["messages"] == []


def test_a_conversation_goes_on_and_an_answer_can_be_made_anew() -> None:
    chats = Chats()
    answered(chats, "One.", " first ")
    engine = Scripted(Piece("second", 1, "stop"))
    engine.go.release()
    chats.say("e", "Two.", "", turn(engine))
    until(chats, done)
    assert engine.prompts == ["[['user', 'One.'], ['assistant', 'first'], ['user', 'Two.']]"]
    again = Scripted(Piece("other", 1, "stop"))
    again.go.release()
    chats.say("e", "", "", turn(again))
    assert last(until(chats, done))["text"] == "other"
    assert again.prompts == engine.prompts


def test_stopping_ends_the_generation_and_keeps_what_is_there() -> None:
    chats, engine = Chats(), Scripted(*[Piece("a", n) for n in range(1, 9)])
    chats.say("e", "Go.", "", turn(engine))
    engine.go.release()
    until(chats, lambda state: last(state)["tokens"] == 1)
    chats.stop("e")
    engine.go.release()
    state = until(chats, done)
    assert (last(state)["text"], last(state)["finish"], engine.is_closed) == ("aa", "stopped", True)


@pytest.mark.parametrize(
    ("error", "shown"),
    [(StudioError("too long"), "too long"), (ValueError("x"), "the studio made a mistake here")],
)
def test_a_failure_is_shown_and_the_next_message_begins_afresh(
    error: Exception, shown: str
) -> None:
    chats, engine = Chats(), Scripted(error)
    engine.go.release()
    chats.say("e", "Go.", "", turn(engine))
    assert shown in str(last(until(chats, done))["error"])
    after = Scripted(Piece("fine", 1, "stop"))
    after.go.release()
    chats.say("e", "Next.", "", turn(after))
    assert last(until(chats, done))["text"] == "fine"
    assert after.prompts == ["[['user', 'Next.']]"]


def test_clearing_forgets_and_ends_the_answer() -> None:
    chats, engine = Chats(), Scripted(Piece("a", 1), Piece("b", 2))
    chats.say("e", "Go.", "", turn(engine))
    version = chats.state("e")["version"]
    chats.clear("e")
    engine.go.release()
    assert chats.state("e")["messages"] == [] and chats.state("e")["version"] != version


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "the message is empty"), (7, "a message is text"), ("x" * 100_001, "at most 100,000")],
)
def test_a_message_that_cannot_be(text: object, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        Chats().say("e", text, "", turn(Scripted()))


def test_one_answer_at_a_time_and_an_end() -> None:
    chats, engine = Chats(), Scripted(Piece("a", 1, "stop"))
    chats.say("e", "Go.", "", turn(engine))
    with pytest.raises(StudioError, match="an answer is under way"):
        chats.say("e", "And?", "", turn(engine))
    engine.go.release()
    until(chats, done)
    for _ in range(MOST_MESSAGES // 2 - 1):
        answered(chats, "More.", "yes")
    with pytest.raises(StudioError, match="very long"):
        chats.say("e", "More.", "", turn(engine))


def test_a_prompt_that_cannot_be_written_changes_nothing() -> None:
    def refuse(messages: list[dict[str, str]]) -> Prompt:
        raise StudioError("no such role")

    chats = Chats()
    with pytest.raises(StudioError, match="no such role"):
        chats.say("e", "Go.", "", Turn(Scripted(), "m", Sampling(), refuse))
    assert chats.state("e") == Chats().state("e")
