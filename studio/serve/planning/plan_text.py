"""A plan as data for programs and for the page, and as text for people."""

from collections.abc import Sequence
from typing import Any

from studio.serve.planning.costs import Step
from studio.serve.planning.gpus import Gpu
from studio.serve.planning.plan import IMPOSSIBLE, ModelPlan, Plan, Row
from studio.serve.planning.planner import size


def plan_data(plan: Plan, costs: Sequence[Step] = ()) -> dict[str, Any]:
    """Everything, as JSON takes it. Sizes in bytes, times in seconds."""
    return {
        "arrangement": plan.arrangement,
        "imagined": plan.found.imagined,
        "gpus": [_gpu(gpu) for gpu in plan.found.gpus],
        "why_no_gpus": plan.found.why,
        "memory": plan.memory,
        "utilisation": plan.wish.utilisation,
        "length": plan.length,
        "requests": plan.wish.requests,
        "models": [_model(model) for model in plan.models],
        "why": list(plan.why),
        "warnings": list(plan.warnings),
        "remedies": list(plan.remedies),
        "several": plan.several
        and {
            "machines": plan.several.machines,
            "row": _row(plan.several.row),
            "commands": [{"where": w, "command": c} for w, c in plan.several.commands],
        },
        "costs": [
            {"name": s.name, "seconds": s.seconds, "machine": s.machine, "price": s.price}
            for s in costs
        ],
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    return {"index": gpu.index, "name": gpu.name, "memory": gpu.memory, "free": gpu.free}


def _model(model: ModelPlan) -> dict[str, Any]:
    return {
        "label": model.label,
        "parameters": model.shape.parameters,
        "dtype": model.dtype,
        "quantisation": str(model.quantisation),
        "max_len": model.shape.max_len,
        "gpus": list(model.gpus),
        "chosen": model.chosen and _row(model.chosen),
        "rows": [_row(row) for row in shown_rows(model)],
    }


def _row(row: Row) -> dict[str, Any]:
    data: dict[str, Any] = {"tp": row.way.tp, "pp": row.way.pp, "refusal": row.refusal}
    if row.need:
        need = row.need
        data |= {
            "fits": row.fits,
            "weights": need.weights,
            "overhead": need.activations + need.fixed,
            "kv": need.kv,
            "reserve": max(0, need.spare),
            "tokens": need.tokens,
            "requests": round(row.requests, 2),
        }
    return data


def shown_rows(model: ModelPlan) -> list[Row]:
    """The rows worth a look: pipelines only where they are needed."""
    plain = any(row.fits for row in model.rows if row.way.pp == 1)
    return [
        row
        for row in model.rows
        if row.way.pp == 1 or row is model.chosen or (row.fits and not plain)
    ]


def plan_text(plan: Plan, costs: Sequence[Step] = ()) -> str:
    """The plan as a table for each model, and the recommendation."""
    lines = [_head(plan), ""]
    seen: dict[tuple[Row, ...], str] = {}
    for model in plan.models:
        first = seen.setdefault(model.rows, model.label)
        table = _table(model, plan)
        lines += [*(table if first == model.label else [table[0], f"  as {first}"]), ""]
    lines.append(f"Plan: {plan.arrangement}.")
    for chosen in plan.models if plan.arrangement != IMPOSSIBLE else ():
        where = f" on GPU {', '.join(map(str, chosen.gpus))}" if plan.found.gpus else ""
        lines.append(f"  {chosen.label}{where}")
    lines += [f"  {line}" for line in plan.why]
    lines += [f"note: {line}" for line in plan.warnings]
    lines += [f"instead: {line}" for line in plan.remedies]
    if plan.several:
        lines += ["", f"On {plan.several.machines} machines:"]
        for where, command in plan.several.commands:
            lines += [f"  # {where}", f"  {command}"]
    return "\n".join([*lines, *_costs(costs)])


def _head(plan: Plan) -> str:
    if not plan.found.gpus:
        return f"{plan.found.why}: the processor, {size(plan.memory)} of memory free"
    if_so = "What if: " if plan.found.imagined else ""
    return f"{if_so}{len(plan.found.gpus)} × {plan.found.gpus[0].name}, {size(plan.memory)}"


def _table(model: ModelPlan, plan: Plan) -> list[str]:
    shape = model.shape
    packing = f", {model.quantisation}" if model.quantisation.bits else ""
    lines = [
        f"{model.label}: {_count(shape.parameters)} parameters, {model.dtype}{packing}",
        "  TP  PP  weights/GPU    KV tokens  requests of " + f"{plan.length:,}",
    ]
    for row in shown_rows(model):
        mark = "→" if row is model.chosen else " "
        head = f"{mark} {row.way.tp:2}  {row.way.pp:2}"
        if row.need is None:
            lines.append(f"{head}  {row.refusal}")
            continue
        verdict = f"{row.requests:8.1f}" if row.fits else "does not fit"
        lines.append(f"{head}  {size(row.need.weights):>11}  {row.need.tokens:11,}  {verdict:>12}")
    return lines


def _count(parameters: int) -> str:
    is_big = parameters >= 1e8
    return f"{parameters / (1e9 if is_big else 1e6):.3g}{'B' if is_big else 'M'}"


def _costs(costs: Sequence[Step]) -> list[str]:
    if not costs:
        return []
    lines = ["", "Time and money:"]
    for step in costs:
        price = f"  {step.price:8.2f}" if step.price else ""
        lines.append(f"  {step.name:<9} {step.seconds / 60:7.1f} min  {step.machine}{price}")
    total = sum(step.price for step in costs)
    return lines + ([f"  together  {total:.2f}"] if total else [])
