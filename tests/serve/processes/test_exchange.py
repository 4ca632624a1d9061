"""Changing weights, where something goes wrong that nobody thought of."""

import threading
from typing import Any, cast

from studio.serve.processes.board import Board
from studio.serve.processes.exchange import Exchange
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from tests.serve.engines import DEMO


class Careless:
    """A control whose answer is not what it should be."""

    def switch(self, files: object) -> dict[str, Any]:
        raise KeyError("digests")


def test_a_change_of_weights_that_nobody_understands_breaks_the_engine_off() -> None:
    board = Board(EngineState("e", ModelSpec(model="m"), phase="ready", can_switch=True))
    broken: list[str] = []
    is_over = threading.Event()

    def break_off(problem: str) -> None:
        broken.append(problem)
        is_over.set()

    def settle(files: object) -> None:
        raise AssertionError("nothing has changed")

    exchange = Exchange(board, cast(Any, None), cast(Any, Careless()), settle, break_off)
    exchange.switch(str(DEMO / "story"), "")
    assert is_over.wait(20)
    assert broken == ["the studio failed while it changed the weights: KeyError('digests')"]
