"""Where an engine's state is written down by one thread and read by many."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from studio.serve.processes.state import EngineState, Phase


class Board:
    """The present state of one engine."""

    def __init__(self, state: EngineState) -> None:
        self._state = replace(state, since=time.time())
        self._changed = threading.Condition(threading.RLock())

    @property
    def state(self) -> EngineState:
        """The state now."""
        with self._changed:
            return self._state

    def note(self, **changes: Any) -> EngineState:
        """Change what is known; a change of phase is dated."""
        with self._changed:
            if changes.get("phase", self._state.phase) != self._state.phase:
                changes["since"] = time.time()
            self._state = replace(self._state, **changes)
            self._changed.notify_all()
            return self._state

    def reset(self) -> None:
        """Begin anew: what is known of the life before is forgotten."""
        with self._changed:
            self._state = EngineState(self._state.id, self._state.spec, since=time.time())
            self._changed.notify_all()

    def move(self, before: Sequence[Phase], phase: Phase, **changes: Any) -> bool:
        """Change the phase if it is one of `before`; whether it was."""
        with self._changed:
            if self._state.phase not in before:
                return False
            self.note(phase=phase, **changes)
            return True

    def wait(self, phases: Sequence[Phase], seconds: float) -> EngineState:
        """The state as soon as it is in one of the phases, at the latest after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.phase in phases, seconds)
            return self._state
