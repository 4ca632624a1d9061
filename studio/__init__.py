"""Merge Studio: tune, make, serve and blind-test merges of language models."""

__version__ = "0.1.0"
