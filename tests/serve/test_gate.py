"""The door: a key on every path, and no answer meant for another model."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from studio.serve.gate import GENERATING, KEY_VARIABLE, Gate, Residency

KEY = "k" * 43


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate before an application that answers 200 to everything."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["in_flight"] = getattr(scope["app"].state.residency, "in_flight", None)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return Gate(app)


def ask(
    gate: Gate, path: str, headers: dict[str, str], residency: Residency | None = None
) -> tuple[int, Any]:
    sent: list[Any] = []
    inside: dict[str, Any] = {}

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read before the door")

    scope = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "app": SimpleNamespace(state=SimpleNamespace(residency=residency)),
        "state": inside,
    }
    asyncio.run(gate(scope, receive, send))
    return sent[0]["status"], inside.get("in_flight")


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
    assert residency.in_flight == 0
    assert ask(gate, GENERATING, WITH_KEY | {"x-studio-model": "xwin"}, residency)[0] == 409
    assert ask(gate, GENERATING, WITH_KEY, residency)[0] == 200


def test_nothing_is_answered_while_no_model_is_known_to_be_there(gate: Gate) -> None:
    residency = Residency(None, "/m")
    assert ask(gate, GENERATING, WITH_KEY, residency)[0] == 409
    assert ask(gate, "/health", WITH_KEY, residency)[0] == 200


def test_without_a_key_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(RuntimeError, match="refusing to serve"):
        Gate(None)  # type: ignore[arg-type]
