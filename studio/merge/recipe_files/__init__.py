"""Recipes as mergekit's YAML: read strictly, written canonically."""
