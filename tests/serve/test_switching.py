"""The order of a switch, and that nothing half-loaded ever answers: with scripted weights."""

import asyncio
from dataclasses import dataclass, field

from studio.serve.gate import Residency
from studio.serve.switching import Loaded, Switched, sleep, switch, wake


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
            self.residency.in_flight = 0

    async def load(self, path: str) -> Loaded:
        self._note(f"load {path}")
        left = self.problems.get(path, [])
        return Loaded(problem=left.pop(0)) if left else Loaded("", (f"digest of {path}",), 10)

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
    script = Script(Residency("old", "/old", in_flight=2), pauses_until_idle=3)
    assert run(script).ok
    assert script.done == ["pause"] * 3 + ["load /new", "resume"]


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


def test_two_switches_come_one_after_the_other() -> None:
    async def both() -> list[Switched]:
        residency = Residency("old", "/old")
        script = Script(residency)
        first = switch(residency, script, "a", "/a")
        second = switch(residency, script, "b", "/b")
        return await asyncio.gather(first, second)

    assert [done.model for done in asyncio.run(both())] == ["a", "b"]
