"""An engine that runs elsewhere: found by its URL, tried out, and asked."""

import logging
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx2

from studio.errors import StudioError
from studio.serve.endpoint import NO_TOKENS, Address, Endpoint, json_of, reason_of
from studio.serve.engine import Identity
from studio.serve.planning.models import config_folder
from studio.serve.probe import probe
from studio.serve.processes.board import Board
from studio.serve.processes.exchange import Exchange
from studio.serve.processes.meter import Meter
from studio.serve.special_tokens import end_tokens, tokens_of

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
STOP_SECONDS = 60.0


class Remote:
    """Keeps an eye on a server that the studio did not start and cannot stop."""

    def __init__(self, board: Board) -> None:
        self.board = board
        spec = board.state.spec
        self._address = Address(spec.url, spec.key)
        self._is_to_stop = threading.Event()
        self._name = ""
        self._tokens = NO_TOKENS
        self._thread = threading.Thread(target=self._live, daemon=True, name="endpoint")

    def start(self) -> None:
        """Try the server out, then watch it."""
        self._thread.start()

    def stop(self) -> None:
        """Let go of it; it runs on where it is."""
        self._is_to_stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        self.board.note(phase="stopped")

    let_go = stop

    def exchange(self) -> Exchange:
        """Not from here."""
        raise StudioError(
            f"{self.board.state.spec.name}: the weights of an engine elsewhere cannot be changed "
            "from here; change its model there"
        )

    def engine(self) -> Endpoint:
        """The model at the other end."""
        state = self.board.state
        if state.phase != "ready" or state.identity is None:
            raise StudioError(f"{state.spec.name}: the endpoint is {state.phase}: {state.problem}")
        return Endpoint(self._address, state.identity, name=self._name, tokens=self._tokens)

    def _live(self) -> None:
        spec = self.board.state.spec
        try:
            client = self._address.client()
            with client:
                self._name, longest = model_there(client, spec.model)
                folder = _folder_of(spec.files or spec.model or self._name)
                ends = end_tokens(folder) if folder else ()
                self._tokens = tokens_of(folder) if folder else NO_TOKENS
                identity = Identity(spec.label or self._name, "endpoint", ends=ends)
                with closing(Endpoint(self._address, identity, name=self._name)) as trial:
                    probe(trial)
                if self._is_to_stop.is_set():
                    return
                self.board.move(
                    ("starting",),
                    "ready",
                    identity=identity,
                    max_model_len=longest,
                    url=spec.url,
                    model_path=str(folder or ""),
                )
                self._watch(client)
        except StudioError as error:
            self._fail(str(error))
        except Exception as error:  # a bug of ours must not leave it starting for ever
            log.exception("the watch over %s failed", self.board.state.id)
            self._fail(f"the studio failed while it watched the endpoint: {error!r}")

    def _fail(self, problem: str) -> None:
        """Say so, unless it was let go before: then the board may be another one's by now."""
        if not self._is_to_stop.is_set():
            self.board.note(phase="failed", problem=problem)

    def _watch(self, client: httpx2.Client) -> None:
        meter = Meter(client, None)
        has_metrics = True
        while not self._is_to_stop.wait(LOOK_SECONDS):
            try:
                client.get("/v1/models", timeout=10).raise_for_status()
            except httpx2.HTTPError as error:
                raise StudioError(f"{self._address.url} answers no more ({error})") from error
            if has_metrics:
                try:
                    self.board.note(load=meter.read())
                except httpx2.HTTPStatusError:
                    has_metrics = False  # not every server has them
                except httpx2.HTTPError:
                    self.board.note(load=replace(self.board.state.load, tokens_per_second=None))


def _folder_of(model: str) -> Path | None:
    """The folder of the model's small files, None if they are not on this machine."""
    try:
        folder = config_folder(model)
    except StudioError:  # the server's name for it is no folder and no Hub id
        return None
    return folder if folder and (folder / "config.json").is_file() else None


def model_there(client: httpx2.Client, wanted: str) -> tuple[str, int | None]:
    """The name of the model a server has, and its longest context if it tells that.

    Raises StudioError if the server cannot be reached, or has not exactly the model asked for.
    """
    try:
        response = client.get("/v1/models", timeout=30)
    except httpx2.HTTPError as error:
        raise StudioError(f"{client.base_url}: no server answers there ({error})") from error
    if response.status_code != 200:
        raise StudioError(
            f"{client.base_url}: the server answers {response.status_code} to /v1/models "
            f"({reason_of(response)}); check the URL and the key"
        )
    listed = json_of(response, str(client.base_url)).get("data")
    entries = {
        str(entry["id"]): entry
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, dict) and "id" in entry
    }
    if entries and wanted and wanted not in entries:
        raise StudioError(
            f'{client.base_url}: there is no model "{wanted}"; it has {", ".join(entries)}'
        )
    if not entries:
        raise StudioError(f"{client.base_url}: /v1/models lists no model; check the URL")
    if not wanted and len(entries) != 1:
        raise StudioError(
            f"{client.base_url}: it has {len(entries)} models; name one of {', '.join(entries)}"
        )
    name = wanted or next(iter(entries))
    longest = entries[name].get("max_model_len")
    return name, longest if type(longest) is int else None
