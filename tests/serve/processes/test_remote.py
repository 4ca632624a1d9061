"""Servers elsewhere: reached or not, and refused when they ignore what they are asked."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.serve.embedded.drawing import next_token
from studio.serve.endpoint import Address, Endpoint
from studio.serve.engine import Completion, EngineGone, Identity, Piece, Prompt
from studio.serve.probe import probe
from studio.serve.processes import remote
from studio.serve.processes.board import Board
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.process import free_port
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from studio.serve.sampling import Sampling
from tests.serve.engines import QUESTION, with_ends

WORDS = 40
PLAIN = Sampling(max_tokens=64)


@dataclass
class Toy:
    """An engine over forty words whose odds follow from the last one; it ignores some fields.

    `sure`: how far apart its odds are; `odd`: which of its answers, one in so many, is another one.
    """

    ignores: tuple[str, ...] = ()
    longest: int = 64
    sure: float = 2.0
    odd: int = 1_000_000
    answered: int = 0
    identity: Identity = Identity("toy", "endpoint")

    def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        sampling = replace(sampling, **{name: getattr(PLAIN, name) for name in self.ignores})
        self.answered += 1
        generator = torch.Generator().manual_seed(sampling.seed)
        answer: list[int] = []
        while len(answer) < min(sampling.max_tokens, self.longest):
            state = torch.Generator().manual_seed(answer[-1] if answer else WORDS)
            logits = self.sure * torch.randn(WORDS, generator=state)
            answer.append(next_token(logits, [1, 2], answer, sampling, generator))
        text = " ".join(f"w{token}" for token in answer)
        text += " ." * (self.answered % self.odd == 0)
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        return Completion(text, 2, len(answer), "length", 0.0)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Piece]:
        raise NotImplementedError

    def logprobs(self, tokens: Sequence[int]) -> list[float | None]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "toy", [Toy(), Toy(longest=3), Toy(longest=8, sure=18), Toy(odd=4)], ids=str
)
def test_probe_lets_pass_what_heeds_everything(toy: Toy) -> None:
    """A model that says little seldom repeats itself, and then a penalty changes nothing; one that
    is sure of itself is seldom led astray; a busy server rounds otherwise now and then.
    """
    probe(toy)


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_probe_finds_each_parameter_that_is_ignored(name: str) -> None:
    with pytest.raises(StudioError, match=f"toy: the server ignores .*{name}.*fairly"):
        probe(Toy((name,)))


def test_probe_names_all_that_are_ignored() -> None:
    with pytest.raises(StudioError, match="ignores min_p, repetition_penalty, stop; answers"):
        probe(Toy(("min_p", "stop", "repetition_penalty")))


def problem(fleet: Fleet, spec: ModelSpec) -> str:
    state = fleet.wait(fleet.start(spec), ("ready", "failed", "stopped"), 60)
    assert state.phase == "failed"
    return state.problem


def endpoint(url: str, key: str | None = None, model: str = "") -> ModelSpec:
    return ModelSpec(model=model, engine="endpoint", url=url, key=key)


def test_a_server_elsewhere_is_tried_and_asked(fleet: Fleet, embedded: str) -> None:
    there = fleet.state(embedded)
    name = fleet.start(endpoint(there.url, there.key))
    state = fleet.wait(name, ("ready", "failed"), 90)
    assert state.phase == "ready", state.problem
    assert state.identity == Identity("model", "endpoint") and state.max_model_len == 512
    greedy = Sampling(temperature=0.0, max_tokens=9)
    with closing(fleet.engine(name)) as ours, closing(fleet.engine(embedded)) as theirs:
        assert ours.complete(QUESTION, greedy).text == theirs.complete(QUESTION, greedy).text
        with pytest.raises(StudioError, match="cannot be changed from here"):
            fleet.switch(name, "other")
        fleet.stop(name)
        assert fleet.wait(name, ("stopped",), 30).phase == "stopped"
        assert theirs.complete(QUESTION, greedy).completion_tokens == 9


def test_the_end_tokens_of_a_model_whose_files_are_here_are_known(
    fleet: Fleet, embedded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = fleet.state(embedded)
    (tmp_path / "model").symlink_to(with_ends(tmp_path / "copy", 2, 40))
    monkeypatch.chdir(tmp_path)
    name = fleet.start(endpoint(there.url, there.key, "model"))
    state = fleet.wait(name, ("ready", "failed"), 90)
    fleet.stop(name)
    assert state.identity == Identity("model", "endpoint", ends=(2, 40))


@contextmanager
def answering(text: str) -> Iterator[str]:
    """The URL of a web server that gives one answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if length := int(self.headers.get("Content-Length", 0)):
                self.rfile.read(length)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_answer_that_ends_before_its_first_token_was_aborted() -> None:
    """So vLLM ends those that a switch met while they waited."""
    with answering("data: [DONE]\n\n") as url:
        with closing(Endpoint(Address(url), Identity("x", "endpoint"), name="model")) as engine:
            assert list(engine.stream("Hello", Sampling())) == [Piece("", 0, "abort")]


def test_an_answer_whose_end_does_not_come_broke_off() -> None:
    begun = 'data: {"choices": [{"text": "He", "finish_reason": null}]}\n\n'
    with answering(begun) as url:
        with closing(Endpoint(Address(url), Identity("x", "endpoint"), name="model")) as engine:
            with pytest.raises(EngineGone, match="the answer broke off"):
                list(engine.stream("Hello", Sampling()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>Welcome!</html>", "not an answer of a completions server: '<html>Welcome!"),
        ("[1]", "not an answer of a completions server"),
        ('{"data": [{"name": "x"}]}', "/v1/models lists no model; check the URL"),
        ('{"data": 7}', "/v1/models lists no model"),
    ],
)
def test_a_server_of_another_kind_says_so(fleet: Fleet, text: str, message: str) -> None:
    with answering(text) as url:
        assert message in problem(fleet, endpoint(url))


def test_an_endpoint_that_was_let_go_does_not_fail_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The board may be that of the next one by then."""
    monkeypatch.setattr(remote, "STOP_SECONDS", 0.0)
    is_asked, goes_on = threading.Event(), threading.Event()

    def model_there(client: object, wanted: str) -> tuple[str, int | None]:
        is_asked.set()
        goes_on.wait(20)
        raise StudioError("too late")

    monkeypatch.setattr(remote, "model_there", model_there)
    board = Board(EngineState("e", endpoint("http://127.0.0.1:9")))
    watched = remote.Remote(board)
    watched.start()
    assert is_asked.wait(20)
    watched.stop()
    goes_on.set()
    watched._thread.join(20)
    assert (board.state.phase, board.state.problem) == ("stopped", "")


@pytest.mark.parametrize(
    ("url", "key"), [("http://host:port", None), ("http://127.0.0.1:9", "a\nb")]
)
def test_what_cannot_be_asked_says_so(fleet: Fleet, url: str, key: str | None) -> None:
    assert url in problem(fleet, endpoint(url, key))


def test_what_is_not_there_says_so(fleet: Fleet, embedded: str) -> None:
    there = fleet.state(embedded)
    url = f"http://127.0.0.1:{free_port()}"
    assert "no server answers there" in problem(fleet, endpoint(url))
    assert "check the URL and the key" in problem(fleet, endpoint(there.url, "wrong"))
    assert 'there is no model "xwin"; it has model' in problem(
        fleet, endpoint(there.url, there.key, "xwin")
    )
    assert "is not the address of a server" in problem(fleet, endpoint("ftp://x", "k"))
