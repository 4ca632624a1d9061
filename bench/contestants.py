"""Who takes part: the command line of each, and the recipe they all merge."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

ROOT = Path(__file__).parent.parent
ENGINE, MERGEKIT, FLOOR = "engine", "mergekit", "floor"
# Of all alike. The last one: Python keeps the modules that it has compiled, as it does by default.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "",
}

STAGE = """\
{name}merge_method: slerp
base_model: {a}
models:
  - model: {a}
  - model: {b}
parameters:
  t: {t}
dtype: bfloat16
"""


def house_recipe(models: list[Path]) -> str:
    """The house recipe on three models, as YAML documents; paths become absolute."""
    first, second, third = (str(model.resolve()) for model in models)
    stages = [
        ("name: component-1\n", first, second, "[0.25, 0.3, 0.5]"),
        ("name: component-2\n", second, third, "[0.4, 0.3, 0.25]"),
        ("", "component-1", "component-2", "0.5"),
    ]
    return "---\n".join(STAGE.format(name=name, a=a, b=b, t=t) for name, a, b, t in stages)


@dataclass(frozen=True)
class FloorWay:
    """A way for bench/floor.py to read and to write."""

    read: str
    write: str
    threads: int

    def __str__(self) -> str:
        return f"{self.read} ×{self.threads} + {self.write}"


def floor_ways(cache: str, cores: int) -> list[FloorWay]:
    """The ways worth trying. Memory is busy with few readers; a cold disk likes a deeper queue."""
    writes = ("direct", "direct2", "buffered")
    readers = max(2, min(cores, 8))
    if cache == "warm":
        return [FloorWay(read, write, readers) for read in ("read", "map") for write in writes]
    return [
        FloorWay(read, write, threads)
        for read, threads in (("read", readers), ("direct", 4))
        for write in writes[::2]
    ]


def mergekit_program() -> Path:
    """BenchError where it is not installed."""
    home = Path(os.environ.get("STUDIO_MERGEKIT_VENV") or ROOT / ".venv-mergekit")
    program = home / "bin" / "mergekit-multi"
    if not program.is_file():
        raise BenchError(
            f"{program} is missing: run `make bench` once, which installs it, name an environment "
            "that has it with STUDIO_MERGEKIT_VENV, or leave it out with --without mergekit"
        )
    return program


def engine_command(recipe: Path, out: Path) -> list[str]:
    """The studio's own command line."""
    return [sys.executable, "-m", "studio", "merge", str(recipe), "--out", str(out)]


def mergekit_command(recipe: Path, out: Path, options: list[str]) -> list[str]:
    """Intermediates lie beside the output, in fresh folders: nothing is reused."""
    parts = [str(recipe), "-I", str(out.with_name("intermediate")), "--out-path", str(out)]
    return [str(mergekit_program()), *parts, "--no-lazy", *options]


def floor_command(way: FloorWay, out: Path, nbytes: int, files: list[Path]) -> list[str]:
    """`out` is a file here. The parts of the way first, as bench/floor.py wants them."""
    how = [way.read, way.write, str(way.threads)]
    return [sys.executable, "-m", "bench.floor", *how, str(out), str(nbytes), *map(str, files)]
