"""From what the page asks for to plans, and from plans to engines."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.serve.planning.costs import Rates, Work, checkpoint_bytes, saved, steps
from studio.serve.planning.gpus import GIB, Found, found_here, imagine
from studio.serve.planning.models import is_here, shape_of
from studio.serve.planning.plan import Plan, Wish
from studio.serve.planning.plan_text import plan_data
from studio.serve.planning.planner import make_plan
from studio.serve.processes.spec import EngineKind, ModelSpec

MOST_MODELS = 8
LONGEST_NAME = 500
SMALLEST_CACHE = 0.01  # GiB
WISHES = ("length", "requests", "quantisation", "kv_cache", "dtype", "tp", "pp", "utilisation")
Fields = Mapping[str, Any]


def names_in(value: object) -> list[str]:
    """A list of models from the page; raises StudioError if it is anything else."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise StudioError("the models must be a list of names")
    names = list(dict.fromkeys(name.strip() for name in value))
    if not names or len(names) > MOST_MODELS or not all(names):
        raise StudioError(f"choose 1 to {MOST_MODELS} models")
    if any(len(name) > LONGEST_NAME for name in names):
        raise StudioError(f"a model's name has at most {LONGEST_NAME} characters")
    return names


def wish_in(value: object) -> Wish:
    """The wishes from the page; what is left out, or null, is left to the planner."""
    if not isinstance(value, dict):
        raise StudioError("the wishes must be an object")
    unknown = [name for name in value if name not in WISHES]
    if unknown:
        raise StudioError(f"{unknown[0]!r} is not a wish of a plan; known are {', '.join(WISHES)}")
    given = {name: wish for name, wish in value.items() if wish is not None}
    for name in ("quantisation", "kv_cache", "dtype"):
        if name in given and not isinstance(given[name], str):
            raise StudioError(f"{name} is {given[name]!r}; it is a name")
    return Wish(**given)


def gpus_in(value: object) -> Found:
    """The GPUs of this machine for an empty text, else those that the text imagines."""
    if value in (None, ""):
        return found_here()
    if not isinstance(value, str) or len(value) > 50:
        raise StudioError("write GPUs as 4x80, or leave the field empty for this machine's")
    return imagine(value)


def plan_of(request: Fields) -> Plan:
    """The plan that a request of the page asks for."""
    names = names_in(request.get("models"))
    shapes = {name: shape_of(name) for name in names}
    return make_plan(shapes, gpus_in(request.get("gpus")), wish_in(request.get("wish", {})))


def plan_answer(request: Fields) -> dict[str, Any]:
    """The plan as data for the page, with time and money where prices are given."""
    plan = plan_of(request)
    rates = _rates(request.get("rates", {}))
    missing = [name for name in plan.shapes if not is_here(name)]
    size = checkpoint_bytes(plan)
    share = size * len(missing) // len(plan.models)
    prompts = request.get("prompts", 0)
    if type(prompts) is not int or not 0 <= prompts <= 1_000_000:
        raise StudioError(
            f"the answers wanted are {prompts!r}; use a whole number from 0 to 1000000"
        )
    work = Work(sources=share, prompts=prompts)
    if request.get("merge") is True:  # the models are the sources of a merge to come
        work = Work(sources=size, result=size // len(plan.models), prompts=prompts)
    is_asked = prompts or rates.gpu_hour or rates.cpu_hour or missing or work.result
    costs = steps(plan, work, rates) if is_asked else ()
    data = plan_data(plan, costs)
    return {**data, "saved": saved(costs, rates), "missing": missing, "bytes": size}


def _rates(value: object) -> Rates:
    names = ("download", "disk", "tokens", "gpu_hour", "cpu_hour")
    if not isinstance(value, dict) or not all(
        name in names and type(number) in (int, float) and math.isfinite(number)
        for name, number in value.items()
    ):
        raise StudioError(f"the rates must be numbers named {', '.join(names)}")
    return Rates(**value)


def specs_of(
    plan: Plan, engine: EngineKind, models: Sequence[str], idle: float | None
) -> list[ModelSpec]:
    """What to start of a plan: its engines for these models.

    Raises StudioError if the plan does not fit, or is for hardware that is not here.
    """
    plan.require()
    if plan.found.imagined:
        raise StudioError(
            "this plan is for hardware that is not here; clear the field to plan for this machine"
        )
    return [_spec(plan, label, engine, idle) for label in models]


def _spec(plan: Plan, label: str, engine: EngineKind, idle: float | None) -> ModelSpec:
    model = next(each for each in plan.models if each.label == label)
    assert model.chosen is not None and model.chosen.need is not None
    way, need = model.chosen.way, model.chosen.need
    return ModelSpec(
        model=label,
        label=_label(label),
        engine=engine,
        tensor_parallel_size=way.tp,
        pipeline_parallel_size=way.pp,
        gpus=model.gpus,
        dtype=way.dtype if model.gpus else "auto",
        quantisation=way.quantisation.name if way.quantisation.online else None,
        kv_cache=plan.wish.kv_cache,
        max_model_len=plan.length,
        gpu_memory_utilization=way.utilisation,
        kv_cache_gib=None if model.gpus else max(need.kv / GIB, SMALLEST_CACHE),
        idle_minutes=idle,
    )


def _label(model: str) -> str:
    return Path(model.rstrip("/")).name
