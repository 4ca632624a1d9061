"""An engine behind HTTP: every server that speaks vLLM's completions, here or elsewhere."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from studio.errors import StudioError
from studio.serve.engine import Completion, EngineGone, FinishReason, Identity, Piece, Prompt
from studio.serve.gate import GENERATING, MODEL_HEADER
from studio.serve.sampling import Sampling
from studio.serve.special_tokens import SpecialTokens

CONNECT_SECONDS = 10.0
MOST_CONNECTIONS = 256
NO_TOKENS = SpecialTokens()
FINISHES: dict[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: `url` without the path /v1, or `socket`, a Unix socket beneath it."""

    url: str
    key: str | None = field(default=None, repr=False)
    socket: Path | None = None

    def client(self) -> httpx2.Client:
        """A connection pool for many threads; answers may take as long as they take."""
        if self.url.rpartition("://")[0] not in ("http", "https"):
            raise StudioError(f'"{self.url}" is not the address of a server; use http://HOST:PORT')
        transport = httpx2.HTTPTransport(
            uds=None if self.socket is None else str(self.socket),
            limits=httpx2.Limits(max_connections=MOST_CONNECTIONS),
        )
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        base = self.url.rstrip("/").removesuffix("/v1")
        try:
            return httpx2.Client(
                base_url=base, transport=transport, headers=headers, timeout=timeout
            )
        except (httpx2.InvalidURL, ValueError) as error:  # ValueError: a key that is no header
            raise StudioError(f"{self.url}: no server can be asked there ({error})") from error


class Endpoint:
    """A model on a server, see `studio.serve.engine.Engine`.

    `name` is the model's name there. `resident`, if given, is the id of the model that must be in
    the engine: a request that finds another one fails. `tokens`: the model's special tokens. A
    prompt that starts with the begin token gets no second one, and a stop string that is a special
    token ends the answer at that token.
    """

    def __init__(
        self,
        address: Address,
        identity: Identity,
        *,
        name: str,
        resident: str | None = None,
        tokens: SpecialTokens = NO_TOKENS,
    ) -> None:
        self.identity = identity
        self._name = name
        self.tokens = tokens
        self._client = address.client()
        if resident is not None:
            self._client.headers[MODEL_HEADER] = resident

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Piece]:
        """The answer as it is made; see Engine."""
        body = self._body(prompt, sampling) | {
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        try:
            with self._client.stream("POST", GENERATING, json=body) as response:
                if response.status_code != 200:
                    response.read()
                    self._fail(response)
                yield from _pieces(self.identity.label, response.iter_lines())
        except httpx2.HTTPError as error:
            raise self._gone(error) from error

    def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The whole answer; see Engine."""
        start = time.perf_counter()
        data = self._post(self._body(prompt, sampling) | {"stream": False})
        choice = _choice(self.identity.label, data)
        prompt_tokens, tokens = _usage(data)
        if tokens is None or prompt_tokens is None:
            raise StudioError(f"{self.identity.label}: the server counts no tokens (no usage)")
        reason = _finish(self.identity.label, choice["finish_reason"])
        seconds = time.perf_counter() - start
        return Completion(str(choice["text"]), prompt_tokens, tokens, reason, seconds)

    def logprobs(self, tokens: Sequence[int]) -> list[float | None]:
        """ln p of each token; see Engine."""
        if len(tokens) < 2:
            return [None] * len(tokens)
        greedy = Sampling(temperature=0.0, max_tokens=1)
        body = self._body(tokens, greedy) | {"stream": False, "prompt_logprobs": 0}
        choice = _choice(self.identity.label, self._post(body))
        found = choice.get("prompt_logprobs")
        if not isinstance(found, list) or len(found) != len(tokens):
            raise StudioError(
                f"{self.identity.label}: the server gives no log-probabilities of a prompt; use "
                "vLLM for what needs them"
            )
        return [
            None,
            *(float(e[str(t)]["logprob"]) for t, e in zip(tokens[1:], found[1:], strict=True)),
        ]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        plain = prompt if isinstance(prompt, str) else list(prompt)
        ids, begin = self.tokens.ids, self.tokens.begin
        stops = [ids[text] for text in sampling.stop if text in ids]
        body = {"model": self._name, "prompt": plain, "n": 1} | sampling.as_data()
        body["stop_token_ids"] = sorted({*self.identity.ends, *stops})
        if isinstance(prompt, str) and begin and prompt.startswith(begin):
            body["add_special_tokens"] = False
        return body

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._client.post(GENERATING, json=body)
        except httpx2.HTTPError as error:
            raise self._gone(error) from error
        if response.status_code != 200:
            self._fail(response)
        return json_of(response, self.identity.label)

    def _gone(self, error: Exception) -> EngineGone:
        reason = str(error).strip() or type(error).__name__
        return EngineGone(f"{self.identity.label}: the engine does not answer ({reason})")

    def _fail(self, response: httpx2.Response) -> None:
        reason = reason_of(response)
        status = response.status_code
        label = self.identity.label
        if status in (401, 403):
            raise StudioError(f"{label}: the server refuses the key ({reason}); give the right one")
        if status == 409 or status >= 500:
            raise EngineGone(f"{label}: {reason}")
        raise StudioError(f"{label}: the server refuses the request ({status}): {reason}")


def json_of(response: httpx2.Response, where: str) -> dict[str, Any]:
    """The JSON object that a server answered; raises StudioError if it is none."""
    return _object(response.text, where)


def reason_of(response: httpx2.Response) -> str:
    """What a server says of a request it did not answer, on one line."""
    try:
        data = response.json()
    except ValueError:
        return " ".join(response.text.split())[:300] or response.reason_phrase
    error = data.get("error", data) if isinstance(data, dict) else data
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:500]


def _pieces(label: str, lines: Iterator[str]) -> Iterator[Piece]:
    """The pieces in a server's event stream; the last is held back until all tokens are counted."""
    tokens, last = 0, ""
    reason: FinishReason | None = None
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            reason = reason or "abort"  # vLLM has no event for an end before the first token
            break
        event = _object(data, label)
        if "error" in event:
            raise EngineGone(f"{label}: {event['error'].get('message', event['error'])}")
        tokens = _usage(event)[1] or tokens
        for choice in event.get("choices", ()):
            if choice.get("finish_reason") is not None:
                reason = _finish(label, choice["finish_reason"])
                last = choice["text"]
            elif choice["text"]:
                yield Piece(choice["text"], tokens)
    if reason is None:
        raise EngineGone(f"{label}: the answer broke off; the engine ended")
    yield Piece(last, tokens, reason)


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise StudioError(
            f"{where}: not an answer of a completions server: {' '.join(text.split())[:200]!r}"
        )
    return data


def _choice(label: str, data: dict[str, Any]) -> dict[str, Any]:
    match data.get("choices"):
        case [{"text": str(), "finish_reason": _} as choice]:
            return dict(choice)
    raise StudioError(f"{label}: not an answer of a completions server: {str(data)[:200]}")


def _usage(data: dict[str, Any]) -> tuple[int | None, int | None]:
    usage = data.get("usage") or {}
    return usage.get("prompt_tokens"), usage.get("completion_tokens")


def _finish(label: str, reason: object) -> FinishReason:
    if reason not in FINISHES:
        raise StudioError(f"{label}: the server ended an answer for an unknown reason ({reason!r})")
    return FINISHES[str(reason)]
