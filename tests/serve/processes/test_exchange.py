"""Changing weights: the way to the files, and what goes wrong that nobody thought of."""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from studio.errors import StudioError
from studio.serve.processes import exchange as exchanges
from studio.serve.processes.board import Board
from studio.serve.processes.exchange import Exchange
from studio.serve.processes.log import DOWNLOADING, Progress
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


def test_a_change_of_weights_tells_its_download_and_a_stop_ends_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = Board(EngineState("e", ModelSpec(model="m"), phase="ready", can_switch=True))
    told: list[object] = []
    is_over = threading.Event()

    def download(model: str, on_bytes: Callable[[int, int], None]) -> None:
        on_bytes(1, 9)
        told.append(board.state.progress)
        board.move(("switching",), "stopping")
        try:
            on_bytes(2, 9)
        except StudioError as error:
            told.append(str(error))
            raise
        finally:
            is_over.set()

    monkeypatch.setattr(exchanges, "check_exchange", lambda spec: None)
    monkeypatch.setattr(exchanges, "model_files", download)
    nothing = cast(Any, None)
    Exchange(board, nothing, nothing, nothing, nothing).switch("maker/far", "")
    assert is_over.wait(20)
    assert told == [Progress(DOWNLOADING, 1, 9), "m: the engine is stopping"]
    assert board.state.phase == "stopping"
