"""The door: a key on every path, and no answer meant for another model."""

import asyncio
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from studio.serve import gate as gate_module
from studio.serve.gate import GENERATING, KEY_VARIABLE, Gate, Residency

KEY = "k" * 43


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate before an application that answers 200 to everything."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["under_way"] = len(getattr(scope["app"].state.residency, "under_way", ()))
        scope["state"]["body"] = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return Gate(app)


def piece(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def asked(
    gate: Gate,
    path: str,
    headers: dict[str, str],
    residency: Residency | None = None,
    messages: Iterable[dict[str, Any]] = (piece(b"{}"),),
) -> tuple[list[Any], dict[str, Any]]:
    """What is sent to a client that sends the messages and then nothing; what the app saw."""
    sent: list[Any] = []
    inside: dict[str, Any] = {}
    coming = iter(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        for message in coming:
            return message
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "app": SimpleNamespace(state=SimpleNamespace(residency=residency)),
        "state": inside,
    }
    asyncio.run(gate(scope, receive, send))
    return sent, inside


def ask(
    gate: Gate, path: str, headers: dict[str, str], residency: Residency | None = None
) -> tuple[int, Any]:
    sent, inside = asked(gate, path, headers, residency)
    return sent[0]["status"], inside.get("under_way")


WITH_KEY = {"authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize("path", ["/health", "/v1/models", GENERATING, "/invocations", "/"])
@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": KEY[:-1]}, {"x-key": KEY}]
)
def test_no_path_opens_without_the_key(gate: Gate, path: str, headers: dict[str, str]) -> None:
    assert ask(gate, path, headers)[0] == 401


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 200), ("/metrics", 200), (GENERATING, 200), ("/v1/studio/switch", 200),
        ("/invocations", 404), ("/tokenize", 404), ("/collective_rpc", 404), ("/docs", 404),
        ("/v1/completions/../x", 404), ("", 404),
    ],
)  # fmt: skip
def test_the_key_opens_only_known_paths(gate: Gate, path: str, status: int) -> None:
    assert ask(gate, path, WITH_KEY)[0] == status


def test_a_request_for_another_model_is_turned_away(gate: Gate) -> None:
    residency = Residency("merge", "/m")
    meant = WITH_KEY | {"x-studio-model": "merge"}
    assert ask(gate, GENERATING, meant, residency) == (200, 1)
    assert not residency.under_way
    assert ask(gate, GENERATING, WITH_KEY | {"x-studio-model": "xwin"}, residency)[0] == 409
    assert ask(gate, GENERATING, WITH_KEY, residency)[0] == 200


def test_nothing_is_answered_while_no_model_is_known_to_be_there(gate: Gate) -> None:
    residency = Residency(None, "/m")
    assert ask(gate, GENERATING, WITH_KEY, residency)[0] == 409
    assert ask(gate, "/health", WITH_KEY, residency)[0] == 200


def test_a_request_is_let_in_whole(gate: Gate) -> None:
    pieces = [piece(b'{"prompt"', more=True), piece(b': "x"', more=True), piece(b"}")]
    _, inside = asked(gate, GENERATING, WITH_KEY, Residency("merge", "/m"), pieces)
    assert inside == {"under_way": 1, "body": b'{"prompt": "x"}'}


def test_the_model_is_looked_at_when_the_request_is_whole(gate: Gate) -> None:
    residency = Residency("merge", "/m")

    def switching() -> Iterator[dict[str, Any]]:
        yield piece(b"{", more=True)
        residency.model = None
        yield piece(b"}")

    sent, inside = asked(gate, GENERATING, WITH_KEY, residency, switching())
    assert (sent[0]["status"], inside) == (409, {})


def test_a_stalled_request_is_not_under_way_and_not_waited_for(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "WHOLE_SECONDS", 0.05)
    residency = Residency("merge", "/m")
    counted = []

    def half() -> Iterator[dict[str, Any]]:
        yield piece(b"{", more=True)
        counted.append(len(residency.under_way))
        yield piece(b'"prompt', more=True)

    sent, inside = asked(gate, GENERATING, WITH_KEY, residency, half())
    assert (counted, inside) == ([0], {})
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]
    assert b"did not come whole within 0.05 s" in sent[1]["body"]


def test_a_client_that_leaves_half_way_is_answered_nothing(gate: Gate) -> None:
    left = [piece(b"{", more=True), {"type": "http.disconnect"}]
    assert asked(gate, GENERATING, WITH_KEY, Residency("merge", "/m"), left) == ([], {})


def test_without_a_key_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match="refusing to serve"):
        Gate(None)  # type: ignore[arg-type]
