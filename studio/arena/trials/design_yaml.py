"""TRIAL.yaml: a design as people write it, read strictly."""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import yaml

from studio.arena.trials.design import Compare, Design, Exclusions, Format, Model, Reveal
from studio.errors import StudioError, nearest

LONGEST_TEMPLATE = 50_000
_FIELDS = [field.name for field in dataclasses.fields(Design)]
_TUPLES = ("prompts", "categories", "scores", "primary")
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("draws", "votes_per_prompt", "raters", "seed"), (int,)),
    **dict.fromkeys(
        ("overlap", "repeats", "identical", "alpha", "expect", "expect_ties"), (int, float)
    ),
    **dict.fromkeys(("name", "project"), (str,)),
    **dict.fromkeys(("sensitive", "stop_early", "seen_prompts"), (bool,)),
    "sealed": (bool, type(None)),
    "sampling": (dict, str),
    "exclusions": (dict,),
}
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_WORDS |= {dict: "a mapping", type(None): "null"}


def load_design(text: str, origin: str, presets: Mapping[str, Mapping[str, Any]]) -> Design:
    """Read a design; `sampling` may be the name of a preset, which is replaced by its values.

    Raises StudioError naming `origin`, the key and, where it is known, the line.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise StudioError(f"{origin}{where}: this is not valid YAML") from error
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise StudioError(f"{origin}: expected a mapping of keys to values")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    if len(lines) < len(node.value):
        raise StudioError(f"{origin}: a key is given twice; keep one")
    try:
        return design_from_data(data, presets)
    except _KeyProblem as problem:
        line = f", line {lines[problem.key]}" if problem.key in lines else ""
        raise StudioError(f"{origin}{line}: {problem}") from None
    except StudioError as error:
        raise StudioError(f"{origin}: {error}") from None


def design_text(design: Design) -> str:
    """The design as TRIAL.yaml; `load_design` reads it back."""
    return str(yaml.safe_dump(design.as_data(), sort_keys=False, allow_unicode=True, width=100))


class _KeyProblem(StudioError):
    """Something wrong under one key of the design."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key


def design_from_data(
    data: Mapping[str, Any], presets: Mapping[str, Mapping[str, Any]] | None = None
) -> Design:
    """The design that `Design.as_data` gave, or that was written by hand."""
    for key in data:
        if key not in _FIELDS:
            raise _KeyProblem(str(key), f"unknown key{nearest(str(key), _FIELDS)}")
    for key in ("name", "project", "models", "primary", "prompts"):
        if key not in data:
            raise _KeyProblem(key, "is missing; demo/trial.yaml shows what a trial needs")
    values = {key: _checked(key, value) for key, value in data.items()}
    sampling = values.get("sampling", {})
    if isinstance(sampling, str):
        if sampling not in (known := dict(presets or {})):
            raise _KeyProblem(
                "sampling", f'there is no preset "{sampling}"{nearest(sampling, list(known))}'
            )
        values["sampling"] = {"preset": sampling, **known[sampling]}
    return Design(**values)


def _checked(key: str, value: Any) -> Any:
    """One value of the design in the type its field has."""
    if key == "models":
        return tuple(_model(entry) for entry in _list(key, value))
    if key in _TUPLES:
        return _texts(key, value)
    if key == "compare":
        return _member(Compare, key, value)
    if key == "reveal":
        return _member(Reveal, key, value)
    kinds = _KINDS[key]
    is_switch = isinstance(value, bool)
    if not isinstance(value, kinds) or (is_switch and bool not in kinds):
        raise _KeyProblem(key, f"expected {' or '.join(_WORDS[kind] for kind in kinds)}")
    return _exclusions(value) if key == "exclusions" else value


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _KeyProblem(key, "expected a list")
    return list(value)


def _texts(key: str, value: Any) -> tuple[str, ...]:
    items = _list(key, value)
    if any(not isinstance(item, str) or not item for item in items):
        raise _KeyProblem(key, "expected a list of texts")
    if key == "primary" and len(items) != 2:
        raise _KeyProblem(key, "expected two labels: the merged model, then its rival")
    return tuple(items)


def _member(kind: type[StrEnum], key: str, value: Any) -> StrEnum:
    known = [member.value for member in kind]
    if value not in known:
        raise _KeyProblem(key, f'"{value}" is none of {", ".join(known)}')
    return kind(value)


def _model(entry: Any) -> Model:
    known = [field.name for field in dataclasses.fields(Model)]
    if not isinstance(entry, dict):
        raise _KeyProblem("models", "expected label and source for each model")
    for key, value in entry.items():
        if key not in known:
            raise _KeyProblem("models", f'unknown key "{key}"{nearest(str(key), known)}')
        if not isinstance(value, str) and key != "prompt_format":
            raise _KeyProblem("models", f"{key}: expected text")
    if missing := {"label", "source"} - entry.keys():
        raise _KeyProblem("models", f"{', '.join(sorted(missing))} is missing")
    return Model(**{**entry, "prompt_format": _format(entry.get("prompt_format"))})


def _format(value: Any) -> str | Format | None:
    """A format by its name, or written out as template and stop."""
    if value is None or (isinstance(value, str) and value):
        return value
    if not isinstance(value, dict) or not {"template"} <= value.keys() <= {"template", "stop"}:
        raise _KeyProblem("models", "prompt_format: expected a name, or template and stop")
    template, stop = value["template"], value.get("stop", ())
    if not isinstance(template, str) or not 0 < len(template) <= LONGEST_TEMPLATE:
        longest = f"{LONGEST_TEMPLATE:,}"
        raise _KeyProblem("models", f"template: expected text of at most {longest} characters")
    if not isinstance(stop, list | tuple) or any(not isinstance(s, str) or not s for s in stop):
        raise _KeyProblem("models", "stop: expected a list of texts")
    return Format(template, tuple(stop))


def _exclusions(value: Any) -> Exclusions:
    known = {field.name: type(field.default) for field in dataclasses.fields(Exclusions)}
    for key, entry in value.items():
        if key not in known:
            raise _KeyProblem("exclusions", f'unknown key "{key}"{nearest(str(key), list(known))}')
        wanted = (int, float) if known[key] is float else (bool,)
        if not isinstance(entry, wanted) or (known[key] is float and isinstance(entry, bool)):
            raise _KeyProblem("exclusions", f"{key}: expected {_WORDS[known[key]]}")
    return Exclusions(**value)
