"""Recipes as plain JSON for the page, and back; what comes back is checked like a file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from studio.errors import StudioError
from studio.merge.gradient import Parameter, Rule
from studio.merge.methods import METHODS
from studio.merge.recipe import Input, Recipe, Settings, Slice, Stage, anchors, with_anchors
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe

MOST_ITEMS = 200
LONGEST_TEXT = 20_000


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as lists, dictionaries, text and numbers."""
    return {"stages": [_stage_to_json(stage) for stage in recipe.stages]}


def recipe_from_json(data: object) -> Recipe:
    """The recipe that `recipe_to_json` wrote; raises StudioError for anything else.

    The result has gone through the recipe reader, so it is as sound as one from a file.
    """
    stages = tuple(_stage(item) for item in _items(_mapping(data).get("stages")))
    if (rules := _count_rules(stages)) > MOST_ITEMS:
        raise StudioError(f"a recipe of {rules} values is too long; at most {MOST_ITEMS} have room")
    return _as_read(Recipe(stages))


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A recipe whose anchors are their own numbers, 0, 1, 2 …; equal if all else is."""

    text: str
    recipe: Recipe = field(compare=False)


def _as_read(recipe: Recipe) -> Recipe:
    """The recipe as the reader gives it; only what is new about it is read.

    While someone drags a point nothing but anchors changes, and they are numbers already.
    """
    values = anchors(recipe)
    numbered = with_anchors(recipe, range(len(values)))
    read = _read(_Numbered(repr(numbered), numbered))
    return with_anchors(read, [values[int(number)] for number in anchors(read)])


@lru_cache(maxsize=64)
def _read(numbered: _Numbered) -> Recipe:
    text = dump_recipe(numbered.recipe)
    try:
        return load_recipe(text, "recipe")
    except StudioError as error:
        raise StudioError(_by_stage(str(error), text, numbered.recipe), error.data) from None


def _by_stage(message: str, text: str, recipe: Recipe) -> str:
    """What is wrong with the stage, instead of with a line of a file that nobody sees."""
    place = re.match(r"recipe, line (\d+): ", message)
    if place is None:
        return message
    stage = recipe.stages[text.split("\n")[: int(place[1])].count("---")]
    return f"stage {stage.title}: {message[place.end() :]}"


def _count_rules(stages: Sequence[Stage]) -> int:
    """How much work a preview is: every rule is compared with every tensor."""
    slices = [part for stage in stages for part in stage.slices]
    found = [stage.settings for stage in stages] + [part.settings for part in slices]
    found += [entry.settings for part in slices for entry in part.inputs]
    return sum(len(parameter) for settings in found for parameter in settings.values())


def _stage_to_json(stage: Stage) -> dict[str, Any]:
    return {
        "method": stage.method,
        "name": stage.name,
        "dtype": stage.dtype,
        "out_dtype": stage.out_dtype,
        "chat_template": stage.chat_template,
        "tokenizer": stage.tokenizer,
        "settings": _settings_to_json(stage.settings),
        "slices": [
            {
                "start": part.start,
                "end": part.end,
                "settings": _settings_to_json(part.settings),
                "inputs": [
                    {"model": entry.model, "settings": _settings_to_json(entry.settings)}
                    for entry in part.inputs
                ],
            }
            for part in stage.slices
        ],
    }


def _settings_to_json(settings: Settings) -> dict[str, Any]:
    return {
        name: [{"filter": rule.filter, "anchors": list(rule.anchors)} for rule in parameter]
        for name, parameter in settings.items()
    }


def _stage(data: object) -> Stage:
    fields = _mapping(data)
    method = _text(fields.get("method"))
    if method not in METHODS:
        raise StudioError(f'method "{method}" is not supported; use {" or ".join(METHODS)}')
    return Stage(
        method=method,
        slices=tuple(_slice(item, method) for item in _items(fields.get("slices"))),
        name=_optional(fields.get("name")),
        settings=_settings(fields.get("settings"), method),
        dtype=_optional(fields.get("dtype")),
        out_dtype=_optional(fields.get("out_dtype")),
        chat_template=_optional(fields.get("chat_template")),
        tokenizer=_optional(fields.get("tokenizer")),
    )


def _slice(data: object, method: str) -> Slice:
    fields = _mapping(data)
    end = fields.get("end")
    return Slice(
        inputs=tuple(_input(item, method) for item in _items(fields.get("inputs"))),
        start=_whole(fields.get("start")),
        end=None if end is None else _whole(end),
        settings=_settings(fields.get("settings"), method),
    )


def _input(data: object, method: str) -> Input:
    fields = _mapping(data)
    return Input(_text(fields.get("model")), _settings(fields.get("settings"), method))


def _settings(data: object, method: str) -> Settings:
    fields = _mapping(data)
    known = METHODS[method].settings
    if strange := sorted(set(fields) - set(known)):
        raise StudioError(f'unknown parameter "{strange[0]}"; {method} takes {", ".join(known)}')
    return {name: _parameter(rules) for name, rules in fields.items()}


def _parameter(data: object) -> Parameter:
    return tuple(_rule(item) for item in _items(data))


def _rule(data: object) -> Rule:
    fields = _mapping(data)
    anchors = tuple(_number(item) for item in _items(fields.get("anchors")))
    return Rule(anchors, _optional(fields.get("filter")))


def _mapping(data: object) -> Mapping[str, object]:
    if not isinstance(data, dict) or len(data) > MOST_ITEMS:
        raise StudioError("the page sent no recipe; reload it")
    return data


def _items(data: object) -> list[object]:
    if not isinstance(data, list) or not data:
        raise StudioError("a recipe needs at least one entry in each of its lists")
    if len(data) > MOST_ITEMS:
        raise StudioError(f"a list of {len(data)} entries is too long; at most {MOST_ITEMS}")
    return data


def _text(data: object) -> str:
    if not isinstance(data, str) or not data.strip() or len(data) > LONGEST_TEXT:
        raise StudioError(f"expected text in the recipe, found {str(data)[:40]!r}")
    if "\0" in data or not data.isascii() and data != data.encode("utf-8", "replace").decode():
        raise StudioError(f"{data[:40]!r} holds characters that no text should hold")
    return data


def _optional(data: object) -> str | None:
    return None if data is None else _text(data)


def _number(data: object) -> float:
    if isinstance(data, bool) or not isinstance(data, int | float) or not abs(data) <= 1e6:
        raise StudioError(f"{str(data)[:40]!r} is not a number that t can have; enter one like 0.3")
    return float(data)


def _whole(data: object) -> int:
    if isinstance(data, bool) or not isinstance(data, int) or not 0 <= data <= 10_000:
        raise StudioError(f"{str(data)[:40]!r} is not the number of a layer")
    return data
