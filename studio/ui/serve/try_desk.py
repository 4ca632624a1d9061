"""Trying a model: its prompt format, the sampling, and a small conversation with it."""

from pathlib import Path

from studio.errors import StudioError
from studio.serve.formats import (
    EDITED,
    Format,
    choose,
    detect,
    edited,
    format_names,
    mismatch,
    write_prompt,
)
from studio.serve.kept import Formats, Presets
from studio.serve.planning.models import config_folder
from studio.serve.processes.fleet import Fleet
from studio.serve.sampling import PRESETS, RANGES, Sampling
from studio.ui.access import Access, Answer, Request
from studio.ui.serve.chats import Chats, Turn
from studio.ui.serve.models import format_data

LONGEST_TEMPLATE = 50_000


class TryDesk:
    """The handlers of the chat; all of them are the owner's."""

    def __init__(self, access: Access, fleet: Fleet, folder: Path) -> None:
        self.access, self.fleet = access, fleet
        self.chats, self.presets, self.formats = Chats(), Presets(folder), Formats(folder)

    def read_chat(self, request: Request) -> Answer:
        """The conversation with the engine `id`; only its version if the page has that one."""
        self.access.require_owner(request, "trying a model")
        state = self.chats.state(_text(request, "id"))
        if state["version"] == request.get("version"):
            return {"version": state["version"]}
        return state

    def say(self, request: Request) -> Answer:
        """Send a message, or with an empty one ask again, and begin to answer."""
        self.access.require_owner(request, "trying a model")
        name = _text(request, "id")
        model = self.fleet.state(name).spec.model
        folder = _folder(model)
        used = self._format(request, model, folder)
        sampling = Sampling.from_data(request.get("sampling"))
        stop = tuple(dict.fromkeys((*sampling.stop, *used.stop)))
        sampling = Sampling.from_data({**sampling.as_data(), "stop": list(stop)})
        engine = self.fleet.engine(name)
        label = self.fleet.state(name).spec.name
        turn = Turn(engine, label, sampling, lambda said: write_prompt(used, folder, said).sent)
        try:
            self.chats.say(name, request.get("text", ""), request.get("system", ""), turn)
        except StudioError:
            engine.close()
            raise
        return self.chats.state(name)

    def stop_answer(self, request: Request) -> Answer:
        """End the answer under way."""
        self.access.require_owner(request, "trying a model")
        self.chats.stop(_text(request, "id"))
        return {}

    def clear_chat(self, request: Request) -> Answer:
        """Forget the conversation."""
        self.access.require_owner(request, "trying a model")
        self.chats.clear(_text(request, "id"))
        return self.chats.state(_text(request, "id"))

    def show_prompt(self, request: Request) -> Answer:
        """The format of a model and a conversation written in it, as it would be sent."""
        self.access.require_owner(request, "trying a model")
        model = _text(request, "model")
        folder = _folder(model)
        used = self._format(request, model, folder)
        messages = [{"role": "user", "content": str(request.get("text") or "Hello!")[:5000]}]
        if system := str(request.get("system") or "")[:5000]:
            messages.insert(0, {"role": "system", "content": system})
        prompt = write_prompt(used, folder, messages)
        warnings = [line for line in (mismatch(model, folder, used), prompt.warning) if line]
        return {
            "format": format_data(used),
            "text": prompt.text,
            "tokens": prompt.tokens and len(prompt.tokens),
            "warnings": warnings,
        }

    def keep_format(self, request: Request) -> Answer:
        """Keep an edited format for a model, or with `forget` go back to what was found."""
        self.access.require_owner(request, "trying a model")
        model = _text(request, "model")
        kept = None if request.get("forget") else self._format(request, model, _folder(model))
        self.formats.save(model, kept)
        return {}

    def sampling(self, request: Request) -> Answer:
        """The presets, the studio's and the user's, and the range of each parameter."""
        self.access.require_owner(request, "trying a model")
        return {
            "presets": {name: each.as_data() for name, each in self.presets.all().items()},
            "shipped": list(PRESETS),
            "ranges": {name: wanted for name, (*_, wanted) in RANGES.items()},
            "formats": list(format_names()),
        }

    def keep_preset(self, request: Request) -> Answer:
        """Keep a sampling under a name, or with `forget` drop it."""
        self.access.require_owner(request, "trying a model")
        if request.get("forget"):
            self.presets.forget(request.get("name"))
        else:
            self.presets.save(request.get("name"), request.get("sampling"))
        return self.sampling(request)

    def _format(self, request: Request, model: str, folder: Path | None) -> Format:
        """The format that the page asks for: by name, edited, or "" for the model's."""
        wanted = request.get("format") or {}
        if not isinstance(wanted, dict):
            raise StudioError("a format is an object with a name")
        name = wanted.get("name") or ""
        if name == EDITED:
            template, stop = wanted.get("template"), wanted.get("stop", [])
            if not isinstance(template, str) or len(template) > LONGEST_TEMPLATE:
                raise StudioError(f"a template is text of at most {LONGEST_TEMPLATE:,} characters")
            if not isinstance(stop, list) or not all(isinstance(s, str) and s for s in stop):
                raise StudioError("the stop strings are a list of texts, none of them empty")
            return edited(template, stop, folder)
        if name:
            return choose(str(name), folder)
        found = self.formats.of(model, folder) or detect(model, folder)
        if found is None:
            raise StudioError(
                f"{model}: neither its files nor its makers tell its prompt format; choose one "
                f"below: {', '.join(format_names())}"
            )
        return found


def _folder(model: str) -> Path | None:
    """Where the model's small files are; None where they are not here, as for an endpoint's."""
    try:
        return config_folder(model)
    except StudioError:
        return None


def _text(request: Request, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value:
        raise StudioError(f"the request lacks {key}")
    return value
