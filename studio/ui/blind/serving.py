"""What the Blind tab has of the Serve tab: attached servers, and engines that can make room."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.serve.processes.fleet import Fleet
    from studio.serve.processes.state import EngineState

KEY_VARIABLE = "ENDPOINT_KEY"


class Serving:
    """The engines of this studio's Serve tab; none where the page is for rating alone."""

    def __init__(self, fleet: "Fleet | None" = None) -> None:
        self._fleet = fleet

    def models(self) -> list[dict[str, str]]:
        """The models of attached servers, as the form offers models."""
        return [
            {"label": state.spec.name, "source": state.spec.url + f"#{name}" * bool(name)}
            for state in self._states()
            if state.spec.engine == "endpoint" and state.phase == "ready"
            for name in [state.spec.model]
        ]

    def check(self, source: str) -> None:
        """Raise StudioError if a model's source can be none, as far as is known here."""
        from studio.serve.planning.models import check_source

        check_source(source)

    def environ(self) -> Mapping[str, str]:
        """The keys of attached servers for a process that asks them; they are stored nowhere."""
        keys = {state.spec.url: state.spec.key for state in self._states() if state.spec.key}
        return {KEY_VARIABLE: json.dumps(keys)} if keys else {}

    def named(self, ids: Sequence[str]) -> dict[str, str]:
        """The names of those of the engines that run in this studio, by id."""
        return {s.id: s.spec.name for s in self._states() if s.id in ids and s.is_live}

    def stop(self, ids: object) -> None:
        """End engines, and return when they are gone; raises StudioError if one is none of ours."""
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise StudioError("the engines to stop are a list of their ids")
        if self._fleet is None or not ids:
            return
        for each in ids:
            self._fleet.stop(each)
        for each in ids:
            self._fleet.wait(each, ("stopped", "failed"))

    def _states(self) -> "list[EngineState]":
        return self._fleet.snapshot() if self._fleet else []
