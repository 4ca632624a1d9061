"""The order of a switch, and that nothing half-loaded ever answers: with scripted weights."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from studio.serve import switching
from studio.serve.gate import GENERATING, KEY_VARIABLE, Gate, Residency
from studio.serve.switching import Loaded, Switched, resident, sleep, switch, wake

KEY = "k" * 43


@dataclass
class Script:
    """Weights whose loads go as written: a problem for each path, or none."""

    residency: Residency
    problems: dict[str, list[str]] = field(default_factory=dict)
    refused: str = ""
    sleepless: str = ""
    done: list[str] = field(default_factory=list)
    pauses_until_idle: int = 0

    async def refusal(self, path: str) -> str:
        return self.refused

    async def pause(self) -> None:
        self._note("pause")
        self.pauses_until_idle -= 1
        if self.pauses_until_idle <= 0:
            self.residency.under_way.clear()

    async def load(self, path: str) -> Loaded:
        self._note(f"load {path}")
        left = self.problems.get(path, [])
        return Loaded(problem=left.pop(0)) if left else Loaded("", (f"digest of {path}",), 10)

    async def state(self, path: str) -> Loaded:
        return Loaded("", (f"digest of {path}",), 10)

    async def sleep(self) -> str:
        self._note("sleep")
        return self.sleepless

    async def wake(self, part: str) -> str:
        self._note(f"wake {part}")
        return ""

    async def resume(self) -> None:
        self._note("resume")

    def _note(self, what: str) -> None:
        assert self.residency.model is None, f"{what} while {self.residency.model} answers"
        self.done.append(what)


def run(script: Script) -> Switched:
    return asyncio.run(switch(script.residency, script, "new", "/new"))


def test_switch_pauses_loads_and_resumes() -> None:
    script = Script(Residency("old", "/old"))
    done = run(script)
    assert script.done == ["pause", "load /new", "resume"]
    assert (done.ok, done.model, done.digests) == (True, "new", ("digest of /new",))
    assert (script.residency.model, script.residency.path) == ("new", "/new")
    assert set(done.seconds) == {"pause", "load", "verify", "resume"}


def test_switch_waits_for_requests_that_slipped_in() -> None:
    async def slipped_in() -> Script:
        script = Script(Residency("old", "/old"), pauses_until_idle=3)
        async with asyncio.timeout(None) as deadline:
            script.residency.under_way.add(deadline)
            assert (await switch(script.residency, script, "new", "/new")).ok
        return script

    assert asyncio.run(slipped_in()).done == ["pause"] * 3 + ["load /new", "resume"]


def test_refused_model_touches_nothing() -> None:
    script = Script(Residency("old", "/old"), refused="other shapes")
    done = run(script)
    assert (script.done, done.ok, done.model, done.problem) == ([], False, "old", "other shapes")
    assert script.residency.model == "old"


def test_failed_load_puts_the_previous_model_back() -> None:
    script = Script(Residency("old", "/old"), {"/new": ["disk"]})
    done = run(script)
    assert script.done == ["pause", "load /new", "load /old", "resume"]
    assert (done.ok, done.model, done.problem) == (False, "old", "disk")
    assert (script.residency.model, script.residency.path) == ("old", "/old")


def test_when_nothing_can_be_put_back_nothing_answers() -> None:
    script = Script(Residency("old", "/old"), {"/new": ["disk"], "/old": ["disk too"]})
    done = run(script)
    assert script.done == ["pause", "load /new", "load /old"]
    assert (done.ok, done.model) == (False, None)
    assert done.problem == "disk; and the previous model could not be put back: disk too"
    assert script.residency.model is None


def test_sleep_gives_up_the_weights_and_wake_reads_them_again() -> None:
    script = Script(Residency("old", "/old"))
    done = asyncio.run(sleep(script.residency, script))
    assert (done.ok, done.model, script.residency.model) == (True, None, None)
    assert run(script).problem == "no model is awake in the engine"
    done = asyncio.run(wake(script.residency, script))
    assert (done.ok, done.model, done.digests) == (True, "old", ("digest of /old",))
    assert script.residency.model == "old"
    assert script.done == [
        "pause", "sleep", "wake weights", "load /old", "wake kv_cache", "resume",
    ]  # fmt: skip
    assert asyncio.run(wake(script.residency, script)).problem == "the engine does not sleep"


def test_an_engine_that_cannot_sleep_goes_on() -> None:
    script = Script(Residency("old", "/old"), sleepless="no GPU")
    done = asyncio.run(sleep(script.residency, script))
    assert (done.ok, done.model, done.problem) == (False, "old", "no GPU")
    assert script.done == ["pause", "sleep", "resume"] and script.residency.model == "old"


def test_an_engine_that_wakes_without_its_weights_stays_shut() -> None:
    script = Script(Residency("old", "/old"), {"/old": ["disk"]})
    asyncio.run(sleep(script.residency, script))
    done = asyncio.run(wake(script.residency, script))
    assert (done.ok, done.model, done.problem) == (False, None, "disk")
    assert script.residency.model is None and "resume" not in script.done


class Clients:
    """Clients of one engine, through its gate; `stuck` ones never take what they are sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        self.residency = Residency("old", "/old")
        self.script = Script(self.residency, pauses_until_idle=1000)
        self._gate = Gate(answer)

    def come(self, *, stuck: str) -> "asyncio.Task[None]":
        """One more; `stuck` in the "sending" of its request, or in the "taking" of its answer."""

        async def never(message: Any = None) -> Any:
            await asyncio.Event().wait()

        async def receive() -> Any:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        scope = {
            "type": "http",
            "path": GENERATING,
            "headers": [(b"authorization", f"Bearer {KEY}".encode())],
            "app": SimpleNamespace(state=SimpleNamespace(residency=self.residency)),
        }
        receive = never if stuck == "sending" else receive
        return asyncio.create_task(self._gate(scope, receive, never))


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """The application behind the gate: it answers at once."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})


def test_a_client_that_stalls_in_its_request_holds_up_no_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stalled() -> None:
        clients = Clients(monkeypatch)
        client = clients.come(stuck="sending")
        await asyncio.sleep(0)
        assert (await switch(clients.residency, clients.script, "new", "/new")).ok
        assert clients.script.done == ["pause", "load /new", "resume"] and not client.done()
        client.cancel()

    asyncio.run(stalled())


def test_a_client_that_does_not_take_its_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(switching, "PATIENCE_SECONDS", 0.1)

    async def stalled() -> None:
        clients = Clients(monkeypatch)
        client = clients.come(stuck="taking")
        await asyncio.sleep(0)
        assert len(clients.residency.under_way) == 1
        assert (await switch(clients.residency, clients.script, "new", "/new")).ok
        await client

    asyncio.run(stalled())
    assert "was cut off" in caplog.text


def test_what_ends_by_no_means_refuses_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "DRAIN_SECONDS", 0.1)

    async def endless() -> None:
        script = Script(Residency("old", "/old"), pauses_until_idle=1000)
        async with asyncio.timeout(None) as deadline:
            script.residency.under_way.add(deadline)
            done = await switch(script.residency, script, "new", "/new")
        assert (done.ok, done.model, script.residency.model) == (False, "old", "old")
        assert "running answers did not end" in done.problem
        assert script.done[-1] == "resume" and "load /new" not in script.done

    asyncio.run(endless())


def test_resident_waits_for_no_switch() -> None:
    async def asked() -> None:
        residency = Residency("old", "/old")
        script = Script(residency)
        found = await resident(residency, script)
        assert (found["model"], found["digests"]) == ("old", ("digest of /old",))
        async with residency.lock:
            residency.model = None
            found = await asyncio.wait_for(resident(residency, script), 5)
        assert (found["model"], found["digests"]) == (None, ())
        assert "being changed" in found["problem"]

    asyncio.run(asked())


def test_resident_is_no_model_if_a_switch_began_meanwhile() -> None:
    class Slow(Script):
        async def state(self, path: str) -> Loaded:
            self.residency.model = None
            return await super().state(path)

    residency = Residency("old", "/old")
    found = asyncio.run(resident(residency, Slow(residency)))
    assert (found["model"], found["digests"]) == (None, ())


def test_two_switches_come_one_after_the_other() -> None:
    async def both() -> list[Switched]:
        residency = Residency("old", "/old")
        script = Script(residency)
        first = switch(residency, script, "a", "/a")
        second = switch(residency, script, "b", "/b")
        return await asyncio.gather(first, second)

    assert [done.model for done in asyncio.run(both())] == ["a", "b"]
