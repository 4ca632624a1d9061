"""What the studio says to an engine it started, beside the prompts."""

import socket
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from studio.errors import StudioError
from studio.serve.endpoint import Address, Endpoint, reason_of
from studio.serve.engine import EngineGone, Identity
from studio.serve.processes.model_files import ModelFiles
from studio.serve.processes.vllm_command import SERVED_NAME
from studio.serve.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Greeting:
    """What an engine says of itself once it answers."""

    max_model_len: int | None
    digests: tuple[str, ...]
    verified: str
    digest: str
    problem: str


class Control:
    """The control paths of one engine."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.client = address.client()

    def is_healthy(self) -> bool:
        """Whether the engine is up."""
        if not self._is_listening():
            return False
        try:
            return self.client.get("/health", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def _is_listening(self) -> bool:
        """Whether somebody is behind the socket; the HTTP client would leave each try open."""
        if self._address.socket is None:
            return True
        with socket.socket(socket.AF_UNIX) as trial:
            return trial.connect_ex(str(self._address.socket)) == 0

    def first_words(self, label: str) -> Greeting:
        """Let it answer once, since the first answer compiles; then ask what is in it.

        Raises EngineGone if it ends over that.
        """
        trial = Endpoint(self._address, Identity(label, ""), name=SERVED_NAME)
        try:
            trial.complete("Hello", Sampling(temperature=0.5, max_tokens=2))
            models = self.client.get("/v1/models").raise_for_status().json()
            resident = self.client.get("/v1/studio/resident").raise_for_status().json()
        except httpx2.HTTPError as error:
            raise EngineGone(f"{label}: the engine does not answer ({error})") from error
        finally:
            trial.close()
        return Greeting(
            models["data"][0].get("max_model_len"),
            tuple(resident["digests"]),
            resident["verified"],
            resident["digest"],
            resident["problem"],
        )

    def switch(self, files: ModelFiles) -> dict[str, Any]:
        """Have the weights changed in place: `switching.Switched` as data, and the whole time.

        Raises EngineGone if the engine ends over that.
        """
        return self._change("switch", {"model": files.fingerprint, "path": str(files.path)})

    def sleep(self) -> dict[str, Any]:
        """Have the GPUs' memory given back: like `switch`."""
        return self._change("sleep", {})

    def wake(self) -> dict[str, Any]:
        """Have the weights read again: like `switch`."""
        return self._change("wake", {})

    def _change(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            response = self.client.post(f"/v1/studio/{what}", json=body)
        except httpx2.HTTPError as error:
            raise EngineGone(
                f"the engine ended while its weights were changed ({error})"
            ) from error
        if response.status_code != 200:
            raise StudioError(f"the weights were not changed: {reason_of(response)}")
        done = response.json()
        assert isinstance(done, dict)
        total = round(time.perf_counter() - start, 4)
        return done | {"total_seconds": total}

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
