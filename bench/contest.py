"""Runs contestants on one set of models: rounds, cache states, cleaning up in between."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench import caches, contestants
from bench.contestants import ENGINE, FLOOR, MERGEKIT, ROOT, FloorWay
from bench.errors import BenchError
from bench.machine import memory
from bench.measure import Run, measure
from bench.shapes import Shape

PAUSE = 1.0  # seconds for the disk to settle after deleting a run's output
SPARE = 1 << 30  # bytes of disk to leave free


@dataclass(frozen=True)
class Options:
    """What the command line asks of every part."""

    rounds: int
    mergekit_runs: int  # 0 leaves it out
    mergekit_options: tuple[str, ...]
    cache_states: tuple[str, ...]
    folder: Path
    keep: bool = False  # models and recipes, not what runs write


@dataclass
class Results:
    """All runs on one set of models from one state of the cache."""

    part: str
    cache: str  # warm or cold
    input_bytes: int
    output_bytes: int
    how: str = ""  # of a cold cache
    floor_way: str = ""
    floor_trials: dict[str, float] = field(default_factory=dict)  # way → wall seconds
    runs: dict[str, list[Run]] = field(default_factory=dict)
    agreement: dict[str, object] = field(default_factory=dict)


def say(text: str) -> None:
    """Tell what is being done, beside the results."""
    print(text, file=sys.stderr, flush=True)


def program(module: str, *arguments: str) -> str:
    """Runs one of the bench's own programs; its standard output. BenchError if it fails."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"{module} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def empty(folder: Path) -> None:
    """Leaves an empty folder and a quiet disk."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    os.sync()
    time.sleep(PAUSE)


class Course:
    """Three models of one shape in a folder, and what is run on them. A context manager.

    Entering makes the models, leaving deletes the folder. BenchError if the disk is too small.
    """

    def __init__(self, part: str, shape: Shape, options: Options) -> None:
        self.part, self.shape, self.options = part, shape, options
        self.home = options.folder / f"{part}-{shape.layers}"
        self.models = [self.home / f"model-{number}" for number in (1, 2, 3)]
        self.files = [model / "model.safetensors" for model in self.models]
        self.recipe = self.home / "recipe.yaml"
        self.out = self.home / "run" / "out"
        self.kept = self.home / "kept"  # one output of each, to compare

    def __enter__(self) -> "Course":
        models = 8 if self.options.mergekit_runs else 4  # inputs; its three; one kept of each
        need = models * self.shape.nbytes + SPARE
        self.home.mkdir(parents=True)
        if (free := shutil.disk_usage(self.home).free) < need:
            raise BenchError(
                f"{self.home}: {need / 1e9:.0f} GB of disk are needed, {free / 1e9:.0f} GB are "
                "free: make room, or name another folder with --dir"
            )
        millions = self.shape.parameters / 1e6
        say(f"{self.part}: making three models of {millions:,.1f} million parameters")
        program("bench.models", *self.shape.as_arguments(), *map(str, self.models))
        self.recipe.write_text(contestants.house_recipe(self.models))
        if sum(file.stat().st_size for file in self.files) > 0.8 * memory("MemAvailable"):
            say(f"{self.part}: the inputs hardly fit into free memory: warm runs may not be warm")
        return self

    def __exit__(self, *_: object) -> None:
        folders = (self.out.parent, self.kept) if self.options.keep else (self.home,)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def input_bytes(self) -> int:
        """Bytes of the three models' files."""
        return sum(file.stat().st_size for file in self.files)

    def ready(self, cache: str) -> str:
        """Empties the output folder and brings the cache into a state; returns how, if cold."""
        empty(self.out.parent)
        if cache == "cold":
            return caches.cold(self.files)
        caches.warm(self.files)
        return ""

    def command(self, name: str, way: FloorWay | None) -> list[str]:
        """The command line of a contestant; the floor needs its way."""
        if name == FLOOR:
            assert way is not None
            return contestants.floor_command(way, self.out, self.shape.nbytes, self.files)
        if name == ENGINE:
            return contestants.engine_command(self.recipe, self.out)
        options = list(self.options.mergekit_options)
        return contestants.mergekit_command(self.recipe, self.out, options)

    def run(self, name: str, cache: str, way: FloorWay | None = None) -> Run:
        """One run from a state of the cache; its output stays until the next."""
        self.ready(cache)
        log = self.home / "log"
        run = measure(self.command(name, way), ROOT, log, contestants.ENVIRONMENT)
        if name == FLOOR and int(log.read_text()) != self.input_bytes:
            raise BenchError(
                f"the floor read {log.read_text().strip()} of {self.input_bytes} bytes"
            )
        say(f"  {cache} {name}{f' ({way})' if way else ''}: {run.wall:.2f} s")
        return run

    def keep(self, name: str) -> None:
        """Sets the output of the run just made aside, to compare it."""
        target = self.kept / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            self.out.rename(target)

    def fastest_floor(self, cache: str) -> tuple[FloorWay, dict[str, float]]:
        """Tries every way twice and returns the one with the fastest run, and the times of all."""
        cores = len(os.sched_getaffinity(0))
        times: dict[FloorWay, float] = {}
        for way in contestants.floor_ways(cache, cores):
            try:
                times[way] = min(self.run(FLOOR, cache, way).wall for _ in range(2))
            except BenchError as error:  # a file system without direct I/O
                say(f"  floor ({way}) is not possible here: {str(error).splitlines()[-1]}")
        if not times:
            raise BenchError("no way of reading and writing works here: see the messages above")
        return min(times, key=lambda way: times[way]), {str(way): t for way, t in times.items()}

    def compare(self) -> dict[str, object]:
        """The engine's output beside mergekit's, once both were kept; deletes both."""
        found: dict[str, object] = json.loads(
            program("bench.agreement", str(self.kept / ENGINE), str(self.kept / MERGEKIT))
        )
        shutil.rmtree(self.kept)
        return found


def contest(course: Course, cache: str) -> Results:
    """Engine and floor in turns, mergekit between the first ones.

    The first run of the engine is not counted, nor are the tries of the floor.
    """
    options = course.options
    results = Results(course.part, cache, course.input_bytes, course.shape.nbytes)
    results.how = course.ready(cache)
    way, results.floor_trials = course.fastest_floor(cache)
    results.floor_way = str(way)
    course.run(ENGINE, cache)  # loads the program from disk, writes its byte code
    course.keep(ENGINE)
    if options.mergekit_runs:
        subprocess.run(
            [str(contestants.mergekit_program()), "--help"], stdout=subprocess.DEVNULL, check=True
        )
    for turn in range(max(options.rounds, options.mergekit_runs)):
        pair = [(FLOOR, way), (ENGINE, None)][:: 1 if turn % 2 == 0 else -1]
        for name, how in pair if turn < options.rounds else []:
            results.runs.setdefault(name, []).append(course.run(name, cache, how))
        if turn < options.mergekit_runs:
            results.runs.setdefault(MERGEKIT, []).append(course.run(MERGEKIT, cache))
            if turn == 0:
                course.keep(MERGEKIT)
                results.agreement = course.compare()
    return results


def scale(shapes: list[Shape], options: Options) -> list[Results]:
    """Engine and floor in turns, warm, on models of growing size, one size on disk at a time."""
    found = []
    for shape in shapes:
        with Course("scale", shape, options) as course:
            results = Results("scale", "warm", course.input_bytes, shape.nbytes)
            way, results.floor_trials = course.fastest_floor("warm")
            results.floor_way = str(way)
            course.run(ENGINE, "warm")
            for _ in range(options.rounds):
                for name, how in ((FLOOR, way), (ENGINE, None)):
                    results.runs.setdefault(name, []).append(course.run(name, "warm", how))
            found.append(results)
    return found
