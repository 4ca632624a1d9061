"""python -m bench: see the package's docstring."""

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import bench
from bench import machine, report, shapes
from bench.browser import browse, browser_text
from bench.contest import Course, Options, Results, contest, scale
from bench.contestants import MERGEKIT, mergekit_program
from bench.errors import BenchError
from bench.serving import serving, serving_data, serving_text
from bench.tuning import tune, tuning_text

MERGING = ("house", "slice", "scale")
PARTS = (*MERGING, "browser", "tuning", "serve")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    text = argparse.RawDescriptionHelpFormatter
    parsed = argparse.ArgumentParser(
        "python -m bench", description=bench.__doc__, formatter_class=text
    )
    add = parsed.add_argument
    add("--only", choices=PARTS, action="append", help="one part; may be given more than once")
    add("--without", choices=[MERGEKIT], help="leave the peer out (its bars are then not measured)")
    add("--cache", choices=["warm", "cold", "both"], default="both", help="default: both")
    add("--rounds", type=int, help="runs of engine and floor, 5 at least to claim something (5)")
    add("--mergekit-runs", type=int, help="runs of mergekit in each state of the cache (2)")
    add("--mergekit-options", default="", help="more options for mergekit-multi, in one string")
    add("--dir", type=_folder, help="where to make a temporary folder (the system's); about 20 GB")
    add("--keep", action="store_true", help="keep the models and recipes made")
    add("--json", type=_file, metavar="FILE", help="write every run and the conclusions to a file")
    add("--quick", action="store_true", help="tiny models and 2 rounds: tests the harness only")
    return parsed


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}: make it, or name another")
    return Path(text)


def _file(text: str) -> Path:
    """Refused at once if it cannot be written, not when everything is measured."""
    _folder(str(Path(text).parent))
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file")
    return Path(text)


def options_of(args: argparse.Namespace, folder: Path) -> Options:
    """What the command line asks of every part that merges; fewer runs where it is quick."""
    rounds = args.rounds or (2 if args.quick else 5)
    peers = args.mergekit_runs or (1 if args.quick else 2)
    return Options(
        rounds=rounds,
        mergekit_runs=0 if args.without == MERGEKIT else peers,
        mergekit_options=tuple(shlex.split(args.mergekit_options)),
        cache_states=("warm", "cold") if args.cache == "both" else (args.cache,),
        folder=folder,
        keep=args.keep,
    )


def show(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)


def contests(part: str, shape: shapes.Shape, options: Options) -> list[Results]:
    """One part in each state of the cache, shown as soon as it is known."""
    found = []
    with Course(part, shape, options) as course:
        for cache in options.cache_states:
            found.append(contest(course, cache))
            show(report.contest_text(found[-1]))
    return found


def run(parts: list[str], quick: bool, options: Options) -> list[Results]:
    """The parts that merge, each shown as soon as it is known."""
    found: list[Results] = []
    if "house" in parts:
        found += contests("house", shapes.TINY if quick else shapes.LLAMA_1B, options)
    if "slice" in parts:
        found += contests("slice", shapes.TINY_SLICE if quick else shapes.LLAMA_70B_SLICE, options)
    if "scale" in parts:
        base = shapes.TINY if quick else shapes.LLAMA_1B
        layers = shapes.TINY_SCALE_LAYERS if quick else shapes.SCALE_LAYERS
        sizes = scale([base.with_layers(count) for count in layers], options)
        show(report.scale_text(sizes))
        found += sizes
    return found


def other(part: str, folder: Path, quick: bool) -> object:
    """A part that is not about merging, shown; its figures for JSON."""
    if part == "browser":
        drags = browse(folder, 20 if quick else 60)
        show(browser_text(drags))
        return [asdict(drag) for drag in drags]
    if part == "tuning":
        timings = tune(folder, 20 if quick else 200)
        show(tuning_text(timings))
        return [asdict(timing) for timing in timings]
    served = serving(1 if quick else 3)
    show(serving_text(served))
    return serving_data(served)


def main(arguments: list[str]) -> int:
    """0 when everything was measured, whatever the bars say; 2 when something could not be."""
    args = parser().parse_args(arguments)
    if not sys.platform.startswith("linux"):
        print("the bench reads /proc and uses direct I/O: it runs on Linux only", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="studio-bench-", dir=args.dir)).resolve()
    try:
        parts = args.only or list(PARTS)
        options = options_of(args, folder)
        if options.mergekit_runs and {"house", "slice"} & set(parts):
            mergekit_program()  # missing? then say so now
        about = machine.describe(folder)
        show(report.machine_text(about))
        if args.quick:
            show(
                "--quick: only the harness is tried; on models this small the figures mean nothing"
            )
        elif options.rounds < 5 or options.mergekit_runs < 2:
            show("fewer than 5 rounds, or than 2 runs of mergekit: too few to claim anything")
        found = run(parts, args.quick, options)
        others = {part: other(part, folder, args.quick) for part in parts if part not in MERGING}
        if args.json:
            data = report.as_json(about, found) | others
            args.json.write_text(json.dumps(data, indent=2) + "\n")
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        if args.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is deleted
    sys.exit(main(sys.argv[1:]))
