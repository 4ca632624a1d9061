"""The command that plans: which models fit on which GPUs."""

import argparse
from typing import TYPE_CHECKING

from studio.cli.exits import BAD_INPUT
from studio.cli.progress import emit

if TYPE_CHECKING:
    from studio.serve.planning.costs import Step
    from studio.serve.planning.plan import Plan, Wish

GPUS_HELP = 'plan for GPUs that are not here: "4x80", "2xA100", "cpu"; default: those found'


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's command to the parser."""
    plan = commands.add_parser("plan", help="which models fit on which GPUs, and what it costs")
    add = plan.add_argument
    add("models", nargs="+", metavar="MODEL", help="folders or Hub ids")
    add("--gpus", metavar="N×SIZE", help=GPUS_HELP)
    add("--max-model-len", type=int, dest="length", metavar="TOKENS", help="default at most 4096")
    add("--requests", type=int, default=8, help="how many of that length at once, default 8")
    add("--quantization", default="none", metavar="NAME", help="on line: fp8, fp8_per_block …")
    add("--kv-cache", choices=("auto", "fp8"), default="auto", help="default auto")
    add("--dtype", help="default: the model's own")
    add("--tp", type=int, help="tensor parallel size, default: the planner's choice")
    add("--pp", type=int, help="pipeline size")
    add("--gpu-memory-utilization", type=float, default=0.92, dest="utilisation", metavar="SHARE")
    add("--prompts", type=int, default=0, help="answers wanted of each model, for time and money")
    add("--tokens", type=int, default=300, help="tokens an answer, default 300")
    add("--merge", action="store_true", help="count merging these models first, too")
    add("--download", type=float, default=100, metavar="MB/S", help="default 100")
    add("--disk", type=float, default=1000, metavar="MB/S", help="default 1000")
    add("--tokens-per-second", type=float, metavar="N", help="measured, instead of estimated")
    add("--gpu-hour", type=float, default=0, metavar="PRICE", help="of the machine with GPUs")
    add("--cpu-hour", type=float, default=0, metavar="PRICE", help="of a machine without")
    add("--json", action="store_true", help="data as JSON on stdout")
    plan.set_defaults(run=_plan)


def _plan(parsed: argparse.Namespace) -> int:
    from studio.serve.planning.costs import Rates, Work, checkpoint_bytes, steps
    from studio.serve.planning.gpus import found_here, imagine
    from studio.serve.planning.models import shape_of
    from studio.serve.planning.planner import make_plan

    found = imagine(parsed.gpus) if parsed.gpus else found_here()
    rates = Rates(
        download=parsed.download * 1e6,
        disk=parsed.disk * 1e6,
        tokens=parsed.tokens_per_second,
        gpu_hour=parsed.gpu_hour,
        cpu_hour=parsed.cpu_hour,
    )
    plan = make_plan({model: shape_of(model) for model in parsed.models}, found, _wish(parsed))
    size = checkpoint_bytes(plan)
    result = size // len(plan.models) if parsed.merge else 0
    work = Work(sources=size, result=result, prompts=parsed.prompts, tokens=parsed.tokens)
    is_asked = parsed.prompts or parsed.gpu_hour or parsed.merge
    costs = steps(plan, work, rates) if is_asked else ()
    return show_plan(plan, costs, as_json=parsed.json)


def show_plan(plan: "Plan", costs: "tuple[Step, ...]" = (), *, as_json: bool) -> int:
    """Print what fits; the exit code tells whether anything does."""
    from studio.serve.planning.plan import IMPOSSIBLE
    from studio.serve.planning.plan_text import plan_data, plan_text

    emit(plan_data(plan, costs)) if as_json else print(plan_text(plan, costs))
    return BAD_INPUT if plan.arrangement == IMPOSSIBLE else 0


def _wish(parsed: argparse.Namespace) -> "Wish":
    from studio.serve.planning.plan import Wish

    return Wish(
        length=parsed.length,
        requests=parsed.requests,
        quantisation=parsed.quantization,
        kv_cache=parsed.kv_cache,
        dtype=parsed.dtype,
        tp=parsed.tp,
        pp=parsed.pp,
        utilisation=parsed.utilisation,
    )
