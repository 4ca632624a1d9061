"""The command that serves models: serve."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from studio.cli.progress import emit
from studio.errors import StudioError
from studio.settings import read_settings

if TYPE_CHECKING:
    from studio.serve.processes.fleet import Fleet
    from studio.serve.processes.spec import ModelSpec
    from studio.serve.processes.state import EngineState
    from studio.serve.sampling import Sampling

SIZES = ("tensor_parallel_size", "pipeline_parallel_size")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's commands to the parser."""
    serve = commands.add_parser("serve", help="serve models until Ctrl-C")
    add = serve.add_argument
    add("models", nargs="+", metavar="MODEL", help="folders or Hub ids, an engine for each")
    add("--engine", choices=("vllm", "embedded"), help="default: vLLM where it is installed")
    add(
        "--tensor-parallel-size",
        "--tp",
        type=int,
        metavar="N",
        help="GPUs to split each over, default 1",
    )
    add("--pipeline-parallel-size", "--pp", type=int, metavar="N", help="default 1")
    add("--gpus", type=_numbers, default=(), metavar="0,1", help="which GPUs, default all")
    add("--dtype", default="auto", help="default: as the files, or what is safe here")
    add("--quantisation", "--quantization", metavar="NAME", help="on-line, e.g. fp8_per_tensor")
    add("--max-model-len", type=int, metavar="N", help="tokens of prompt and answer together")
    add("--plan-only", action="store_true", help="say what would fit, start nothing")
    add("--prompt", help="answer this one prompt, as it is, then stop")
    add("--preset", default="greedy", help="how to draw the answer to --prompt")
    add("--max-tokens", type=int, default=256, metavar="N", help="longest answer to --prompt")
    add("--json", action="store_true", help="data as JSON on stdout")
    serve.set_defaults(run=_serve)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a list of GPUs; write it as 0,1'
        ) from None


def _serve(parsed: argparse.Namespace) -> int:
    from studio.cli.engines import ready
    from studio.serve.kept import Presets
    from studio.serve.processes.fleet import Fleet

    if parsed.plan_only:
        return _plan(parsed)
    data = read_settings(os.environ).data_dir
    presets = Presets(data / "serve").all()
    if parsed.preset not in presets:
        raise StudioError(f'there is no preset "{parsed.preset}"; known are {", ".join(presets)}')
    specs = [_spec(model, parsed) for model in parsed.models]
    fleet = Fleet(data / "engines", adopts=False)
    try:
        for line in fleet.found:
            print(f"note: {line}", file=sys.stderr)
        names = [fleet.start(fleet.placed(spec)) for spec in specs]
        for name in names:
            state = ready(fleet, name, lambda line: print(line, file=sys.stderr))
            if parsed.prompt is not None:
                _answer(fleet, name, parsed, presets[parsed.preset])
            else:
                _show(state, parsed.json)
        if parsed.prompt is None:
            _await_end(fleet, names)
    finally:
        fleet.close()
    return 0


def _plan(parsed: argparse.Namespace) -> int:
    from studio.cli.plan import show_plan
    from studio.serve.planning.gpus import found_here
    from studio.serve.planning.models import shape_of
    from studio.serve.planning.plan import Wish
    from studio.serve.planning.planner import make_plan

    wish = Wish(
        length=parsed.max_model_len,
        quantisation=parsed.quantisation or "none",
        dtype=None if parsed.dtype == "auto" else parsed.dtype,
        tp=parsed.tensor_parallel_size,
        pp=parsed.pipeline_parallel_size,
    )
    shapes = {model: shape_of(model) for model in parsed.models}
    return show_plan(make_plan(shapes, found_here(), wish), as_json=parsed.json)


def _spec(model: str, parsed: argparse.Namespace) -> "ModelSpec":
    from studio.serve.processes.machine import default_engine
    from studio.serve.processes.spec import ModelSpec

    sizes = {name: getattr(parsed, name) for name in SIZES}
    return ModelSpec(
        model=str(Path(model).absolute()) if Path(model).is_dir() else model,
        engine=parsed.engine or default_engine(),
        **{name: size for name, size in sizes.items() if size is not None},
        gpus=parsed.gpus,
        dtype=parsed.dtype,
        quantisation=parsed.quantisation,
        max_model_len=parsed.max_model_len,
        open_port=parsed.prompt is None,
    )


def _show(state: "EngineState", as_json: bool) -> None:
    if as_json:
        emit(state.as_data() | {"event": "ready", "key": state.key})
        return
    print(f"url {state.url}\nkey {state.key}\nmodel model", flush=True)
    print(f"{state.spec.name} is ready; Ctrl-C stops it", file=sys.stderr)


def _answer(fleet: "Fleet", name: str, parsed: argparse.Namespace, preset: "Sampling") -> None:
    from dataclasses import asdict, replace

    sampling = replace(preset, max_tokens=parsed.max_tokens)
    with closing(fleet.engine(name)) as engine:
        if parsed.json:
            emit(asdict(engine.complete(parsed.prompt, sampling)))
            return
        for piece in engine.stream(parsed.prompt, sampling):
            print(piece.text, end="", flush=True)
        print()


def _await_end(fleet: "Fleet", names: Sequence[str]) -> None:
    """Stay while all engines run; raises StudioError if one fails."""
    from studio.cli.engines import LOOK_SECONDS, reason

    while all((state := fleet.state(name)).is_live for name in names):
        time.sleep(LOOK_SECONDS)
    if state.phase == "failed":
        raise StudioError(reason(state))
