"""Asks mergekit for the value of every setting at every tensor; a program for its environment.

    python mergekit_values.py RECIPES.json > VALUES.json

RECIPES.json: recipes of one stage, as YAML, of models that lie in folders. VALUES.json: for each,
{tensor: {setting: value, or [values of the models in the order listed]}}, or null where mergekit
finds that a value is missing.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from mergekit.architecture import get_architecture_info
from mergekit.config import MergeConfiguration
from mergekit.merge import _model_out_config
from mergekit.options import MergeOptions
from mergekit.parameter_resolver import resolve_parameters
from mergekit.plan import MergePlanner


class Recorder(MergePlanner):
    """Plans as mergekit does, but notes what each tensor would be merged with."""

    values: dict[str, dict[str, Any]]

    def plan_tensor(self, weight, weights_in, models, cfg_reader):  # type: ignore[no-untyped-def]
        shared, own = resolve_parameters(
            self._method.spec,
            tensor_name=weight.name,
            inputs={m: w.name for m, w in zip(models, weights_in, strict=True)},
            sources=cfg_reader.parameter_sources,
            base_model=cfg_reader.base_model,
            t=cfg_reader.t,
        )
        names = {name for values in own.values() for name in values}
        listed = {name: [own[model].get(name) for model in models] for name in names}
        self.values[weight.name] = {
            **shared,
            **{k: v for k, v in listed.items() if k not in shared},
        }


def values_of(text: str) -> dict[str, dict[str, Any]] | None:
    options = MergeOptions()
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    architecture = get_architecture_info(config, options)
    planner = Recorder(config, architecture, options, _model_out_config(config, architecture))
    planner.values = {}
    try:
        planner._plan()
    except RuntimeError as error:
        if "Missing required parameter" in str(error):
            return None
        raise
    return planner.values


if __name__ == "__main__":
    recipes = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps([values_of(text) for text in recipes]))
