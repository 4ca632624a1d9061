"""Sources large enough that a merge of them can be killed in the middle."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.cli.exits import CANCELLING
from tests.faults.merging import write_recipe, write_sources

LARGE = {"layers": 6, "hidden_size": 512, "intermediate_size": 1536, "vocab_size": 4096}


@pytest.fixture(scope="session")
def large_models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of 45 MB."""
    return write_sources(tmp_path_factory.mktemp("large"), **LARGE)


@pytest.fixture(scope="session")
def large_recipe(tmp_path_factory: pytest.TempPathFactory, large_models: list[Path]) -> Path:
    """The house recipe over them."""
    return write_recipe(tmp_path_factory.mktemp("recipe") / "recipe.yaml", large_models)


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Three toy models, `a`, `b` and `c`, in a folder of their own."""
    return write_sources(tmp_path / "models", layers=2)


@pytest.fixture
def recipe(tmp_path: Path, models: list[Path]) -> Path:
    """The house recipe over the toy models."""
    return write_recipe(tmp_path / "recipe.yaml", models)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """`cli.main` takes the signals that cancel; the tests' own process wants them back."""
    before = {number: signal.getsignal(number) for number in CANCELLING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
