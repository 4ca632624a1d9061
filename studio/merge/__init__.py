"""Merging: recipes, what they mean, checks, and the one pass (in `run`, which brings LLVM)."""

from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe

__all__ = ["Options", "Plan", "Recipe", "check", "dump_recipe", "load_recipe"]
