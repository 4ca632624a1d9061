"""The recipes that come with the studio; visitors may tune these and no others."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


@dataclass(frozen=True)
class Preset:
    """A shipped recipe.

    `layers`: of its models, for previews where they are not on this machine. `base`: the model
    they were all made from.
    """

    title: str
    file: str
    layers: int
    base: str

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe in the file."""
        return load_recipe((RECIPES / self.file).read_text(), self.file)


CATALOGUE = (
    Preset("Demo: three small models", "demo.yaml", 4, "demo/models/base"),
    Preset(
        "Creative 70B: Mythospice, Xwin, Hermes",
        "creative-70b.yaml",
        layers=80,
        base="meta-llama/Llama-2-70b-hf",
    ),
)


def presets() -> Mapping[str, Preset]:
    """The shipped recipes that are there, by file name without its ending; the demo first."""
    there = [preset for preset in CATALOGUE if (RECIPES / preset.file).exists()]
    if not there:
        raise StudioError(f"{RECIPES} holds no recipe; the studio's own files are incomplete")
    return {Path(preset.file).stem: preset for preset in there}


def refuse_strange_models(recipe: Recipe, known: Mapping[str, Preset]) -> None:
    """Raise StudioError if the recipe names a model that no shipped recipe names."""
    models = {model for preset in known.values() for model in preset.recipe.sources}
    strange = [model for model in recipe.sources if model not in models]
    if strange:
        raise StudioError(
            f"{strange[0]}: visitors can tune the shipped recipes only; "
            "enter the owner token to use other models"
        )
