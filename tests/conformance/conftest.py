"""Both programs run every case once; the tests compare what they wrote."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from studio.merge.plan import Options
from studio.merge.preflight import check
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.merge.run import merge
from tests.checkpoints import Toy
from tests.conformance import oracle
from tests.conformance.cases import CASES, OWN_CASES, Case
from tests.conformance.oracle import Merged

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
Tensors = Mapping[str, torch.Tensor]
FIGURES: dict[str, tuple[float, str]] = {}


@dataclass(frozen=True)
class Outcome:
    """One case: its recipe and the folders that both programs wrote.

    `ours_as_loaded`: what the engine makes of the sources as mergekit loads them, rounded; `ours`
    where it does not round them.
    """

    title: str
    case: Case
    recipe: str
    ours: Path
    ours_as_loaded: Path
    theirs: Path

    @property
    def redone(self) -> Path:
        """What mergekit wrote for the recipe as the studio writes it."""
        return self.theirs.with_name("mergekit-redone")

    @cached_property
    def tensors(self) -> dict[str, Tensors]:
        """The tensors of every source, as they were made."""
        return {name: toy(options).tensors() for name, options in self.case.sources.items()}

    @cached_property
    def expected(self) -> dict[str, Merged]:
        """What every mixed tensor must be, by the oracle."""
        names = [name for name in load_folder(self.ours) if not is_buffer(name)]
        return {name: self.oracle(self.case.stages, name) for name in names}

    def oracle(self, stages: Sequence[Mapping[str, Any]], name: str) -> Merged:
        """What the stages make of this case's sources."""
        layers = toy(next(iter(self.case.sources.values()))).layers
        return oracle.merge(stages, self.inputs(name), name, layers)

    def inputs(self, name: str) -> dict[str, np.ndarray]:
        """Every source's tensor, flat float64; embeddings stand in for a head that is tied."""
        return {
            source: flat(tensors[name] if name in tensors else tensors["model.embed_tokens.weight"])
            for source, tensors in self.tensors.items()
        }


def flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().flatten().numpy()


def is_buffer(name: str) -> bool:
    return name.endswith((".inv_freq", ".attention.bias", ".masked_bias"))


def mergekit_python() -> Path:
    """The interpreter of mergekit's environment. Fails, rather than skips, where there is none."""
    home = Path(os.environ.get("STUDIO_MERGEKIT_VENV") or ROOT / ".venv-mergekit")
    python = home / "bin" / "python"
    if not python.is_file():
        pytest.fail(f"{python} is missing: run tools/setup.sh test, which makes it", pytrace=False)
    return python


def run_mergekit(program: str, *arguments: str | Path) -> str:
    """Run a program of this folder in mergekit's environment; what it prints."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [mergekit_python(), HERE / program, *arguments]
    done = subprocess.run(
        [str(part) for part in command], env=os.environ | quiet, capture_output=True, text=True
    )
    assert done.returncode == 0, f"mergekit failed:\n{done.stderr[-3000:]}"
    return done.stdout


def run_engine(recipe: str, out: Path, options: Options | None = None) -> Path:
    """Merge with the engine itself."""
    plan = check(load_recipe(recipe), options or Options(), out)
    return merge(plan, out, lambda progress: None)


def recipe_text(documents: Sequence[Mapping[str, Any]]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False)


@cache
def load_folder(folder: Path) -> Tensors:
    """All tensors of a result."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


class ToyFolders:
    """Writes each toy once."""

    def __init__(self, home: Path) -> None:
        self.home, self.known = home, {}

    def folder(self, options: Mapping[str, Any]) -> Path:
        key = repr(sorted(options.items(), key=lambda item: item[0]))
        if key not in self.known:
            self.known[key] = write_toy(self.home / f"toy-{len(self.known)}", options)
        return self.known[key]

    def recipe(self, case: Case, sources: Mapping[str, Mapping[str, Any]]) -> str:
        """The case's recipe on these sources."""
        folders = {name: str(self.folder(options)) for name, options in sources.items()}
        return recipe_text(case.documents(folders))


def toy(options: Mapping[str, Any]) -> Toy:
    sizes = {k: v for k, v in options.items() if k in ("hidden_size", "vocab_size")}
    return Toy(config=sizes, **{k: v for k, v in options.items() if k not in sizes})


def write_toy(folder: Path, options: Mapping[str, Any]) -> Path:
    return toy(options).write(folder)


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Every case, merged by both programs; OWN_CASES by the engine alone."""
    home = tmp_path_factory.mktemp("conformance")
    toys = ToyFolders(home)
    made: dict[str, Outcome] = {}
    for number, (title, case) in enumerate((CASES | OWN_CASES).items()):
        out = home / f"case-{number}"
        out.mkdir()
        ours = as_loaded = out / "studio"
        recipe = toys.recipe(case, case.sources)
        if case.loaded_as:
            as_loaded = run_engine(toys.recipe(case, case.loaded), out / "studio-as-loaded")
        made[title] = Outcome(title, case, recipe, ours, as_loaded, out / "mergekit")
    recipes = {made[title].theirs: made[title].recipe for title in CASES}
    recipes |= {made[t].redone: dump_recipe(load_recipe(made[t].recipe)) for t in CASES}
    merge_with_mergekit(home / "jobs.json", recipes)
    for outcome in made.values():
        run_engine(outcome.recipe, outcome.ours)
    return made


def merge_with_mergekit(jobs: Path, recipes: Mapping[Path, str]) -> None:
    """Merge all recipes, each into its folder, in one process; `jobs` is the file to use."""
    listed = []
    for out, text in recipes.items():
        recipe, parts = out.with_suffix(".yaml"), out.with_suffix(".parts")
        recipe.write_text(text)
        listed.append({"recipe": str(recipe), "out": str(out), "intermediate": str(parts)})
    jobs.write_text(json.dumps(listed))
    run_mergekit("mergekit_runs.py", jobs)


@pytest.fixture(params=CASES)
def outcome(request: pytest.FixtureRequest, outcomes: dict[str, Outcome]) -> Outcome:
    """One case after the other."""
    return outcomes[request.param]


def note_figure(group: str, value: float, case: str, tensor: str) -> None:
    """Remember the worst figure of a group, for the summary at the end."""
    if value >= FIGURES.get(group, (-1.0, ""))[0]:
        FIGURES[group] = (value, f"{case} {tensor}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The worst figure of each group, with the case and the tensor that have it."""
    if FIGURES:
        terminalreporter.section("agreement, worst of each group")
    for group, (value, where) in sorted(FIGURES.items()):
        terminalreporter.write_line(f"{group}: {value:.2g} ({where})")
