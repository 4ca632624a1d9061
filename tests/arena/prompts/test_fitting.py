"""What is left out of a conversation that is too long."""

from collections.abc import Sequence

import pytest

from studio.arena.prompts.fitting import fit
from studio.arena.prompts.prompt import Message, Prompt
from studio.errors import StudioError


def prompt(*roles: str) -> Prompt:
    turns = tuple(Message(role, f"{n}") for n, role in enumerate(roles))  # type: ignore[arg-type]
    return Prompt(id="long", category="c", messages=turns)


def ten_each(messages: Sequence[Message]) -> int:
    return 5 + 10 * len(messages)


TALK = prompt("user", "assistant", "user", "assistant", "user")
GREETED = prompt("assistant", "user", "assistant", "user")


@pytest.mark.parametrize(
    ("talk", "room", "left_out"),
    [(TALK, 55, 0), (TALK, 54, 2), (TALK, 35, 2), (TALK, 15, 4), (GREETED, 45, 0), (GREETED, 44, 2),
     (GREETED, 24, 3)],
)  # fmt: skip
def test_fit_leaves_out_the_oldest_turns(talk: Prompt, room: int, left_out: int) -> None:
    fitted = fit(talk, room, ten_each)
    assert (fitted.left_out, fitted.messages) == (left_out, talk.messages[left_out:])
    assert fitted.tokens == ten_each(fitted.messages) <= room


def test_fit_refuses_when_the_last_message_is_too_long() -> None:
    with pytest.raises(StudioError, match='"long" takes 15 tokens even without .* room for 14'):
        fit(TALK, 14, ten_each)
