"""Changing the weights of a running engine in place, beside starting it again.

    python -m bench.switch                       1.1 billion parameters, vLLM, 2 ranks
    python -m bench.switch --engine embedded --tensor-parallel-size 1 --quick

Two models of one shape are made. The engine is started with the first; then the second takes its
place and the first comes back, several times; then the engine is started again with the second.
A switch is counted from the request until the new model may be asked: pause, load, and the check
of every parameter against the files. Bytes are those of the weights on all ranks.

The projection divides the bytes of a 70B model in bfloat16 by bandwidths: it is arithmetic, and it
says what a switch takes where reading the files is the limit.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine, shapes
from bench.contest import program
from bench.contestants import ROOT
from bench.errors import BenchError
from studio.errors import StudioError
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState

TOKENIZER = ROOT / "demo" / "models" / "base"
BYTES_70B = 137.95e9
BANDWIDTHS = (0.5e9, 2e9, 5e9, 10e9)  # a network disk, an SSD, an NVMe drive, the page cache
SETTLED = ("ready", "failed", "stopped")


def make_models(shape: shapes.Shape, folders: list[Path]) -> None:
    """Models with the demo's tokenizer, whose few tokens are a part of their vocabulary."""
    program("bench.models", *shape.as_arguments(), *map(str, folders))
    for folder in folders:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TOKENIZER / name, folder / name)


def settled(fleet: Fleet, name: str) -> EngineState:
    """The engine once it is ready; BenchError if it does not get there."""
    state = fleet.wait(name, SETTLED, 900)
    if state.phase != "ready" or state.problem:
        raise BenchError(f"the engine is {state.phase}: {state.problem} {state.line}")
    return state


def measure(fleet: Fleet, spec: ModelSpec, other: Path, rounds: int) -> dict[str, Any]:
    """Seconds of starts and of switches, with the parts of each switch."""
    name = fleet.start(spec)
    begun = time.perf_counter()
    settled(fleet, name)
    starts = [time.perf_counter() - begun]
    switches = []
    for turn in range(2 * rounds):
        fleet.switch(name, str(other) if turn % 2 == 0 else spec.model)
        switches.append(settled(fleet, name).switch)
    begun = time.perf_counter()
    fleet.restart(name)
    fleet.wait(name, ("starting",), 60)
    settled(fleet, name)
    starts.append(time.perf_counter() - begun)
    return {"starts": starts, "switches": switches}


def report(found: dict[str, Any]) -> str:
    """What was measured, and the projection, for a terminal."""
    switches = found["switches"]
    total = median(each["total_seconds"] for each in switches)
    loads = median(each["seconds"]["load"] for each in switches)
    parts = {
        part: median(each["seconds"].get(part, 0.0) for each in switches)
        for part in ("pause", "load", "verify", "resume")
    }
    nbytes = switches[-1]["bytes_read"]
    lines = [
        f"start    {found['starts'][0]:8.2f} s",
        f"restart  {found['starts'][1]:8.2f} s  (stop and start)",
        f"switch   {total:8.2f} s  median of {len(switches)}; {found['starts'][1] / total:.0f} "
        f"times as fast as a restart",
        "         " + ", ".join(f"{part} {seconds:.2f} s" for part, seconds in parts.items()),
        f"weights  {nbytes / 1e9:8.2f} GB, loaded at {nbytes / loads / 1e9:.2f} GB/s, "
        f"{nbytes / total / 1e9:.2f} GB/s with everything",
        f"checked  {switches[-1]['verified'] or 'not compared with the files'}",
        f"projection for 70B in bfloat16, {BYTES_70B / 1e9:.0f} GB read once, nothing else:",
    ]
    lines += [f"  at {each / 1e9:4.1f} GB/s {BYTES_70B / each:6.0f} s" for each in BANDWIDTHS]
    here = nbytes / total
    lines.append(f"  at the {here / 1e9:.2f} GB/s measured here {BYTES_70B / here:6.0f} s")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench.switch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--engine", choices=("vllm", "embedded"), default="vllm")
    add("--tensor-parallel-size", type=int, default=2, metavar="N")
    add("--dtype", default="bfloat16")
    add("--rounds", type=int, default=2, help="there and back so many times (2)")
    add("--dir", type=Path, help="where to make a temporary folder (the system's); about 5 GB")
    add("--quick", action="store_true", help="tiny models: tests the harness only")
    return parser


def main() -> int:
    """0 when everything was measured, 2 when something could not be."""
    parsed = _parser().parse_args()
    try:
        _run(parsed)
    except (BenchError, StudioError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(parsed: argparse.Namespace) -> None:
    shape = shapes.TINY if parsed.quick else shapes.LLAMA_1B
    with tempfile.TemporaryDirectory(prefix="bench-switch-", dir=parsed.dir) as folder:
        models = [Path(folder) / name for name in ("first", "second")]
        make_models(shape, models)
        for key, value in machine.describe(Path(folder)).items():
            print(f"{key}: {value}", flush=True)
        fleet = Fleet(Path(folder) / "engines")
        try:
            spec = ModelSpec(
                model=str(models[0]),
                engine=parsed.engine,
                dtype=parsed.dtype,
                tensor_parallel_size=parsed.tensor_parallel_size,
            )
            print(report(measure(fleet, spec, models[1], parsed.rounds)))
        finally:
            fleet.close()


if __name__ == "__main__":
    sys.exit(main())
