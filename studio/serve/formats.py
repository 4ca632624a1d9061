"""Prompt formats: which one a model was trained on, and a conversation written in it.

A model asked in another format than its own answers worse, and a comparison then compares formats.
The format is a chat template: the model's own where it has one, else one that its makers state,
else the user's choice. A prompt is sent as token ids made here, so no server can add a second
begin token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from studio import chat_template
from studio.chat_template import named, names, of_folder, render, special_tokens
from studio.errors import StudioError, nearest

OWN, EDITED = "own", "edited"
# The formats that the makers of the house recipe's models state on their cards. The files of these
# models have no template.
STATED: Mapping[str, str] = MappingProxyType(
    {
        "Xwin-LM/Xwin-LM-70B-V0.1": "vicuna",
        "Xwin-LM/Xwin-LM-13B-V0.1": "vicuna",
        "Xwin-LM/Xwin-LM-7B-V0.1": "vicuna",
        "Doctor-Shotgun/Mythospice-70b": "alpaca",
        "NousResearch/Nous-Hermes-Llama2-70b": "alpaca",
    }
)
# What shows that the model goes on to write the user's next turn.
STOPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "alpaca": ("### Instruction:",),
        "chatml": ("<|im_end|>", "<|im_start|>"),
        "llama-2": ("[INST]",),
        "llama3": ("<|eot_id|>", "<|start_header_id|>"),
        "mistral": ("[INST]",),
        "vicuna": ("USER:",),
    }
)


@dataclass(frozen=True, slots=True)
class Format:
    """How a model is spoken to: a Jinja `template` and the strings that end an answer.

    `name`: of one of the studio's templates, or "own" (the model's) or "edited" (the user's).
    `why`: how it was found, a sentence.
    """

    name: str
    template: str
    stop: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as a model is sent it: `text`, and `tokens` where its tokenizer is here.

    `warning` tells what is odd about it; empty if nothing is.
    """

    text: str
    tokens: tuple[int, ...] | None
    warning: str = ""

    @property
    def sent(self) -> str | tuple[int, ...]:
        """What goes to the engine."""
        return self.text if self.tokens is None else self.tokens


def detect(model: str, folder: Path | None) -> Format | None:
    """The format of a model (a path or Hub id) whose files are in `folder`, None if not here.

    Returns None where neither its files nor its makers tell: then someone has to choose.
    """
    own = of_folder(folder) if folder is not None else None
    if own is not None:
        name = chat_template.name_of(own)
        why = f"its own chat template{f', which is {name}' if name else ''}"
        return Format(OWN, own, _stops(own, folder), why)
    if stated := stated_format(model):
        why = f"its makers state {stated}; its files have no template"
        return Format(stated, named(stated), STOPS[stated], why)
    return None


def format_names() -> tuple[str, ...]:
    """The formats that come with the studio."""
    return names()


def choose(name: str, folder: Path | None) -> Format:
    """The format of this name: one of the studio's, or "own".

    Raises StudioError for an unknown name, and for "own" where the model has none.
    """
    if name == OWN:
        own = of_folder(folder) if folder is not None else None
        if own is None:
            raise StudioError(
                f"this model has no chat template of its own; choose {', '.join(names())}"
            )
        return Format(OWN, own, _stops(own, folder), "its own chat template")
    if name not in names():
        raise StudioError(
            f'"{name}" is not a prompt format{nearest(name, (OWN, *names()))}; use {OWN}, '
            f"{', '.join(names())}"
        )
    return Format(name, named(name), STOPS[name], "chosen")


def edited(template: str, stop: Sequence[str], folder: Path | None) -> Format:
    """A format that someone wrote; raises StudioError if it cannot write a conversation."""
    chat_template.check(template, _tokens(folder))
    return Format(EDITED, template, tuple(stop), "edited here")


def stated_format(model: str) -> str | None:
    """What the makers state for a Hub id, or for a folder of the same last name."""
    last = model.rstrip("/").lower().rpartition("/")[2]
    return next((n for known, n in STATED.items() if known.lower().endswith(f"/{last}")), None)


def mismatch(model: str, folder: Path | None, used: Format) -> str:
    """A warning if the model was trained on another format than `used`; empty if not known."""
    found = detect(model, folder)
    if found is None or found.template == used.template:
        return ""
    theirs = chat_template.name_of(found.template) or "its own"
    return (
        f"{model.rstrip('/').rpartition('/')[2]} was trained on {theirs} prompts and is asked in "
        f"{'an edited format' if used.name == EDITED else used.name}: a wrong format is the most "
        "common cause of an unfair comparison"
    )


def write_prompt(
    used: Format, folder: Path | None, messages: Sequence[Mapping[str, str]]
) -> Prompt:
    """The conversation in this format, ready for the model's answer.

    Raises StudioError where the format cannot say it.
    """
    text = render(used.template, _tokens(folder), messages)
    if folder is None:
        return Prompt(text, None)
    tokenizer = _tokenizer(str(folder), _stamp(folder))
    if tokenizer is None:
        return Prompt(text, None)
    ids = _ids(tokenizer, text, special=False)
    begin = _begin(tokenizer)
    while begin is not None and ids[:2] == [begin, begin]:  # a template that writes it twice
        del ids[0]
    warning = ""
    if begin is not None and ids[:1] != [begin]:
        warning = (
            "this prompt has no begin token, though the model's tokenizer puts one first: begin "
            "the template with {{ bos_token }}"
        )
    return Prompt(text, tuple(ids), warning)


def _tokens(folder: Path | None) -> dict[str, str]:
    return special_tokens(folder) if folder is not None else {}


def _stops(template: str, folder: Path | None) -> tuple[str, ...]:
    """The stop strings of a model's own template: what it writes before the user's next turn."""
    if name := chat_template.name_of(template):
        return STOPS[name]
    tokens = _tokens(folder)
    turns = [
        {"role": "user", "content": "«one»"},
        {"role": "assistant", "content": "«two»"},
        {"role": "user", "content": "«three»"},
    ]
    text = render(template, tokens, turns)
    between = text.partition("«two»")[2].partition("«three»")[0]
    for token in tokens.values():
        between = between.replace(token, "")
    first = between.strip().partition("\n")[0].strip()
    return (first,) if first else ()


def _stamp(folder: Path) -> tuple[int, ...]:
    files = [folder / name for name in ("tokenizer.json", "tokenizer.model")]
    return tuple(file.stat().st_mtime_ns for file in files if file.is_file())


@lru_cache(maxsize=8)
def _tokenizer(folder: str, stamp: tuple[int, ...]) -> Any:
    """The model's tokenizer, None where it has none; `stamp` makes a changed one be read again."""
    path = Path(folder)
    try:
        if (path / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            return Tokenizer.from_file(str(path / "tokenizer.json"))
        if (path / "tokenizer.model").is_file():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # both libraries raise plain Exceptions for bad files
        raise StudioError(
            f"{folder}: the tokenizer cannot be read ({error}); download its files again"
        ) from error
    return None


def _begin(tokenizer: Any) -> int | None:
    """The id that this tokenizer itself puts before a text, None if it puts none."""
    begun, plain = (_ids(tokenizer, "a", special) for special in (True, False))
    return begun[0] if begun[:1] != plain[:1] else None


def _ids(tokenizer: Any, text: str, special: bool) -> list[int]:
    """transformers returns a list, tokenizers an object with one."""
    found = tokenizer.encode(text, add_special_tokens=special)
    return list(found if isinstance(found, list) else found.ids)
