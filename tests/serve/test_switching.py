"""The order of a switch, and that nothing half-loaded ever answers: with scripted weights."""

import asyncio
from dataclasses import dataclass, field

from studio.serve.gate import Residency
from studio.serve.switching import Loaded, Switched, switch


@dataclass
class Script:
    """Weights whose loads go as written: a problem for each path, or none."""

    residency: Residency
    problems: dict[str, list[str]] = field(default_factory=dict)
    refused: str = ""
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
    assert set(done.seconds) == {"pause", "load", "resume"}


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


def test_two_switches_come_one_after_the_other() -> None:
    async def both() -> list[Switched]:
        residency = Residency("old", "/old")
        script = Script(residency)
        first = switch(residency, script, "a", "/a")
        second = switch(residency, script, "b", "/b")
        return await asyncio.gather(first, second)

    assert [done.model for done in asyncio.run(both())] == ["a", "b"]
