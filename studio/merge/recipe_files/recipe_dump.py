"""Writing recipes as mergekit's YAML, canonically: equal recipes give equal text."""

import hashlib
from typing import Any

import yaml

from studio.merge.gradient import Parameter, Rule
from studio.merge.methods import METHODS, Method
from studio.merge.recipe import Input, Recipe, Settings, Slice, Stage


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as mergekit YAML; `load_recipe` of it gives an equal recipe."""
    texts = [
        yaml.dump(
            _stage_data(stage), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
        )
        for stage in recipe.stages
    ]
    return "---\n".join(texts)


def fingerprint(recipe: Recipe) -> str:
    """Hex digest of the canonical text: equal for recipes that mean the same."""
    return hashlib.sha256(dump_recipe(recipe).encode()).hexdigest()


class _Dumper(yaml.SafeDumper):
    """Writes lists of numbers on one line, as mergekit's examples do, and any text intact."""


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = all(isinstance(item, (int, float)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML folds these line breaks into spaces unless they are escaped, in double quotes.
    style = '"' if set(text) & {"\x85", "\u2028", "\u2029"} else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)


def _stage_data(stage: Stage) -> dict[str, Any]:
    method = METHODS[stage.method]
    data: dict[str, Any] = {} if stage.name is None else {"name": stage.name}
    data["merge_method"] = stage.method
    if method.needs_base or stage.tokenizer is not None:
        data["base_model"] = stage.models[0]
    if len(stage.slices) == 1 and stage.slices[0].end is None:
        data["models"] = [_input_data(entry, method) for entry in stage.slices[0].inputs]
    else:
        data["slices"] = [_slice_data(part, method) for part in stage.slices]
    if stage.settings:
        data["parameters"] = _settings_data(stage.settings, method)
    optional = {key: getattr(stage, key) for key in ("dtype", "out_dtype", "chat_template")}
    optional["tokenizer_source"] = stage.tokenizer
    return data | {key: value for key, value in optional.items() if value is not None}


def _slice_data(part: Slice, method: Method) -> dict[str, Any]:
    sources = [
        {"model": entry.model, "layer_range": [part.start, part.end]} | _input_data(entry, method)
        for entry in part.inputs
    ]
    settings = {"parameters": _settings_data(part.settings, method)} if part.settings else {}
    return {"sources": sources} | settings


def _input_data(entry: Input, method: Method) -> dict[str, Any]:
    settings = _settings_data(entry.settings, method)
    return {"model": entry.model} | ({"parameters": settings} if settings else {})


def _settings_data(settings: Settings, method: Method) -> dict[str, Any]:
    return {
        name: _parameter_data(parameter, is_switch=method.settings[name].is_switch)
        for name, parameter in settings.items()
    }


def _parameter_data(parameter: Parameter, *, is_switch: bool) -> Any:
    def value(rule: Rule) -> Any:
        numbers = [bool(a) if is_switch else a for a in rule.anchors]
        return numbers[0] if len(numbers) == 1 else numbers

    if len(parameter) == 1 and parameter[0].filter is None:
        return value(parameter[0])
    return [
        ({} if rule.filter is None else {"filter": rule.filter}) | {"value": value(rule)}
        for rule in parameter
    ]
