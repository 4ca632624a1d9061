"""Connects trials with engines: how a model of a trial is started, and asked in its format."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studio.arena.prompts.fitting import Fitted, fit
from studio.arena.prompts.prompt import Message, Prompt
from studio.arena.trials.answers import Generated
from studio.arena.trials.design import Model
from studio.arena.trials.generate import Ask
from studio.errors import StudioError

if TYPE_CHECKING:
    from studio.serve.batch import Completions, Request
    from studio.serve.engine import Completion, Engine
    from studio.serve.formats import Format
    from studio.serve.processes.spec import EngineKind, ModelSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """How the models of a trial are started, all alike; the fields are ModelSpec's.

    `engine` None takes vLLM where it is installed. `endpoints`: by label, the URL of a server that
    runs elsewhere and has the model, with #NAME if it has several. A model whose source is such a
    URL needs none. `key_of` gives the key of a server by its URL.
    """

    engine: "EngineKind | None" = None
    tensor_parallel_size: int = 1
    quantisation: str | None = None
    max_model_len: int | None = None
    endpoints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key_of: Callable[[str], str | None] = lambda url: None

    def spec(self, model: Model) -> "ModelSpec":
        """The engine to be for one model."""
        from studio.serve.planning.models import is_url
        from studio.serve.processes.machine import default_engine
        from studio.serve.processes.spec import ModelSpec

        source = model.source
        where = self.endpoints.get(model.label) or (source if is_url(source) else None)
        if where is not None:
            url, _, name = where.partition("#")
            key = self.key_of(url)
            files = "" if is_url(source) else source
            return ModelSpec(
                model=name, label=model.label, engine="endpoint", url=url, key=key, files=files
            )
        return ModelSpec(
            model=str(Path(source).absolute()) if Path(source).is_dir() else source,
            label=model.label,
            engine=self.engine or default_engine(),
            tensor_parallel_size=self.tensor_parallel_size,
            quantisation=self.quantisation,
            max_model_len=self.max_model_len,
        )


class EngineSpeaker:
    """A model in an engine, asked in one prompt format (a Speaker of studio.arena.trials.generate).

    `room`: the tokens of prompt and answer together, None where the engine does not say. `kept`:
    what the model answered before, in this trial or another.
    """

    def __init__(
        self,
        engine: "Engine",
        used: "Format",
        folder: Path | None,
        room: int | None,
        kept: "Completions | None" = None,
    ) -> None:
        self._engine, self._used, self._folder, self._room = engine, used, folder, room
        self._kept = kept
        about = dataclasses.asdict(engine.identity) | {"ends": _numbers(engine.identity.ends)}
        about["recipe"] = recipe_of(folder) if folder else None
        self.identity: Mapping[str, str] = {k: str(v) for k, v in about.items() if v is not None}
        self.prompt_format = _format_name(used)

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[Ask, Generated]]:
        """The answers as they come, many under way at a time."""
        from studio.serve.batch import complete_all

        fitted = [self._fitted(ask) for ask in asks]
        requests = [self._request(*each) for each in zip(asks, fitted, strict=True)]
        for index, completion in complete_all(self._engine, requests, self._kept):
            yield asks[index], _generated(completion, requests[index], fitted[index])

    def _fitted(self, ask: Ask) -> Fitted:
        """The conversation, its oldest turns left out where the context has no room for them."""
        if self._room is None:
            return Fitted(ask.prompt.messages, 0, 0)
        room = self._room - int(ask.sampling["max_tokens"])
        return fit(ask.prompt, room, lambda messages: self._length(ask.prompt, messages))

    def _length(self, prompt: Prompt, messages: Sequence[Message]) -> int:
        """Tokens; of a text, which the engine tokenizes, about a third of its bytes."""
        sent = self._written(prompt, messages)
        return len(sent) if not isinstance(sent, str) else len(sent.encode()) // 3

    def _written(self, prompt: Prompt, messages: Sequence[Message]) -> str | tuple[int, ...]:
        from studio.serve.formats import write_prompt

        turns = [{"role": "system", "content": prompt.system}] if prompt.system else []
        turns += [{"role": message.role, "content": message.content} for message in messages]
        return write_prompt(self._used, self._folder, turns).sent

    def _request(self, ask: Ask, fitted: Fitted) -> "Request":
        from studio.serve.batch import Request
        from studio.serve.sampling import Sampling

        values = {name: value for name, value in ask.sampling.items() if name != "preset"}
        stop = [*dict.fromkeys([*values.get("stop", ()), *self._used.stop])]
        sampling = Sampling.from_data({**values, "stop": stop, "seed": ask.seed})
        return Request(self._written(ask.prompt, fitted.messages), sampling)


def recipe_of(folder: Path) -> str | None:
    """The fingerprint of the recipe a folder's model was merged by; None if it does not tell."""
    from studio.merge.report import FILE

    try:
        report = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return str(report["recipe"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no merge of this studio


def _numbers(ids: Sequence[int]) -> str | None:
    return ", ".join(map(str, ids)) or None


def _generated(completion: "Completion", request: "Request", fitted: Fitted) -> Generated:
    return Generated(
        text=completion.text,
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        seconds=completion.seconds,
        left_out=fitted.left_out,
        sent=request.sampling.as_data(),
    )


def _format_name(used: "Format") -> str:
    """The format's name; a template that has none of its own is told from others by a hash."""
    if used.name not in ("own", "edited"):
        return used.name
    return f"{used.name}:{hashlib.sha256(used.template.encode()).hexdigest()[:8]}"


def format_of(model: Model, folder: Path | None, say: Callable[[str], None]) -> "Format":
    """The format the design names, or the model's own; raises StudioError where none is known."""
    from studio.serve.formats import choose, detect, edited, mismatch

    wanted = model.prompt_format
    if wanted is not None:
        if isinstance(wanted, str):
            used = choose(wanted, folder)
        else:
            used = edited(wanted.template, wanted.stop, folder)
        if told := mismatch(model.source, folder, used):
            say(f"note: {model.label}: {told}")
        return used
    found = detect(model.source, folder)
    if found is None:
        raise StudioError(
            f"{model.label}: neither its files nor its makers tell its prompt format; name one in "
            "the design (prompt_format), or edit one in the Serve tab before the design is fixed"
        )
    return found
