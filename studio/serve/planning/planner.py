"""Plans: which models on which GPUs, together or in turn, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from studio.errors import StudioError
from studio.serve.planning.gpus import GIB, Found, Gpu
from studio.serve.planning.machines import several
from studio.serve.planning.plan import BESIDE, IMPOSSIBLE, IN_TURN, ONE, ModelPlan, Plan, Row, Wish
from studio.serve.planning.quantisation import unlike
from studio.serve.planning.shapes import Shape
from studio.serve.planning.ways import CPU, alike, as_processor, choose, host_memory, model_plan

USUAL_LENGTH = 4096


def make_plan(
    models: Mapping[str, Shape], found: Found, wish: Wish, memory: int | None = None
) -> Plan:
    """The plan for models (label → shape) on what was found; without GPUs, for the processor.

    `memory`: bytes that the processor may use, None for what is free here. The same input gives
    the same plan. Raises StudioError for wishes that no model can fulfil; a plan that does not fit
    is a plan, with the reason in it.
    """
    if not models:
        raise StudioError("there is no model to plan for; name at least one")
    if found.gpus:
        gpus, notes = alike(found, wish.utilisation)
    else:
        gpus, notes = [as_processor(host_memory() if memory is None else memory)], []
    length = wanted_length(models, wish)
    plans = _plans(models, gpus, wish, length)
    said = [(plan.label, note) for plan in plans for note in plan.shape.notes]
    said += [
        (plan.label, "stored as float32, held as bfloat16")
        for plan in plans
        if plan.shape.dtype == "float32" and plan.dtype == "bfloat16" and not wish.dtype
    ]
    notes += [f"{', '.join(labels)}: {note}" for note, labels in _grouped(said).items()]
    if warning := unlike({plan.label: (plan.dtype, str(plan.quantisation)) for plan in plans}):
        notes.append(warning)
    arrangement, chosen, why = _arrange(plans, gpus, wish, length)
    plan = Plan(found, wish, length, gpus[0].memory, chosen, arrangement, tuple(why), tuple(notes))
    return _with_remedies(plan, gpus) if arrangement == IMPOSSIBLE else plan


def wanted_length(models: Mapping[str, Shape], wish: Wish) -> int:
    """max_model_len; raises StudioError where a model cannot go so far, in vLLM's words."""
    if wish.length is None:
        return min(USUAL_LENGTH, *(shape.max_len for shape in models.values()))
    for label, shape in models.items():
        if wish.length > shape.max_len:
            raise StudioError(
                f"{label}: User-specified max_model_len ({wish.length}) is greater than the "
                f"derived max_model_len (max_position_embeddings={shape.max_len}); use at most "
                f"{shape.max_len}"
            )
    return wish.length


def _plans(
    models: Mapping[str, Shape], gpus: Sequence[Gpu], wish: Wish, length: int
) -> tuple[ModelPlan, ...]:
    return tuple(model_plan(label, shape, gpus, wish, length) for label, shape in models.items())


def _arrange(
    plans: Sequence[ModelPlan], gpus: Sequence[Gpu], wish: Wish, length: int
) -> tuple[str, tuple[ModelPlan, ...], list[str]]:
    """Who gets which GPUs, and why."""
    if gpus[0].name == CPU:
        return _on_processor(plans, gpus[0], wish, length)
    count = len(plans)
    alone = choose(plans, len(gpus), wish.requests)
    beside = choose(plans, len(gpus) // count, wish.requests) if count > 1 else None
    if alone is None:
        return IMPOSSIBLE, tuple(plans), _shortage(plans, length)
    if beside is not None and (
        _room(plans, beside) >= wish.requests or _room(plans, alone) < wish.requests
    ):
        chosen = _give(plans, beside, gpus, apart=True)
        why = [f"{_all(count)} fit at once, each on GPUs of its own"]
        return BESIDE, chosen, why + _words(chosen, wish, length)
    chosen = _give(plans, alone, gpus, apart=False)
    if count == 1:
        return ONE, chosen, _words(chosen, wish, length)
    why = [_why_in_turn(plans, beside, gpus, wish), _why_switch(plans)]
    return IN_TURN, chosen, why + _words(chosen, wish, length)


def _on_processor(
    plans: Sequence[ModelPlan], cpu: Gpu, wish: Wish, length: int
) -> tuple[str, tuple[ModelPlan, ...], list[str]]:
    """The models share one memory."""
    if choose(plans, wish.tp or 1, 1) is None:
        return IMPOSSIBLE, tuple(plans), _shortage(plans, length)
    chosen = _give(plans, 0, [cpu], apart=False)
    if len(plans) == 1:
        return ONE, chosen, _words(chosen, wish, length)
    needs = [row.need for plan in plans if (row := plan.rows[0]) and row.need]
    each = sum(n.weights + n.fixed + length * n.kv_per_token for n in needs)
    if each <= cpu.memory * wish.utilisation:
        return (
            BESIDE,
            chosen,
            [f"{_all(len(plans))} fit into memory together"] + _words(chosen, wish, length),
        )
    why = f"together they would take {size(each)} of {size(cpu.memory)}"
    return IN_TURN, chosen, [why, _why_switch(plans), *_words(chosen, wish, length)]


def _give(
    plans: Sequence[ModelPlan], index: int, gpus: Sequence[Gpu], *, apart: bool
) -> tuple[ModelPlan, ...]:
    """The row for each model, and GPUs: of its own where `apart`, else the first ones."""
    each = plans[0].rows[index].way.gpus
    gpus = [] if gpus[0].name == CPU else gpus
    return tuple(
        replace(
            plan,
            chosen=plan.rows[index],
            gpus=tuple(g.index for g in gpus[each * i * apart : each * i * apart + each]),
        )
        for i, plan in enumerate(plans)
    )


def _room(plans: Sequence[ModelPlan], index: int) -> float:
    return min(plan.rows[index].requests for plan in plans)


def _words(chosen: Sequence[ModelPlan], wish: Wish, length: int) -> list[str]:
    fullest = min((plan.chosen for plan in chosen if plan.chosen), key=lambda r: r.requests)
    way, need = fullest.way, fullest.need
    assert need is not None
    where = "on each GPU" if chosen[0].gpus else "in memory"
    says = [
        f"{way_words(fullest)}: {size(need.weights)} of weights {where}, room for "
        f"{need.tokens:,} tokens, {int(fullest.requests):,} requests of {length:,} at once"
    ]
    if way.pp > 1:
        says.append("a pipeline, because no tensor parallel size alone fits on these GPUs")
    if fullest.requests < wish.requests:
        says.append(
            f"tight: {wish.requests} requests at once were asked for; more will wait in line"
        )
    return says


def way_words(row: Row) -> str:
    """ "tensor parallel 4", with the pipeline if there is one."""
    way = row.way
    pipeline = f" × pipeline {way.pp}" if way.pp > 1 else ""
    return f"tensor parallel {way.tp}{pipeline}"


def _why_in_turn(
    plans: Sequence[ModelPlan], beside: int | None, gpus: Sequence[Gpu], wish: Wish
) -> str:
    each = len(gpus) // len(plans)
    gpu = "GPU" if each == 1 else "GPUs"
    if beside is not None:
        return (
            f"side by side, {each} {gpu} each, only {int(_room(plans, beside))} requests of full "
            f"length would fit at once, {wish.requests} were asked for"
        )
    if each == 0:
        return f"there are fewer GPUs ({len(gpus)}) than models ({len(plans)})"
    return f"side by side, {each} {gpu} each, they do not fit"


def _why_switch(plans: Sequence[ModelPlan]) -> str:
    if len({replace(plan.shape, notes=()) for plan in plans}) == 1:
        return "their shapes are the same: one engine takes their weights in turn, no restart"
    return "their shapes differ: going from one to the other is a restart"


def _grouped(said: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Of each thing that is said, the models it is said of: one line for all of them."""
    found: dict[str, list[str]] = {}
    for label, what in said:
        found.setdefault(what, []).append(label)
    return found


def _all(count: int) -> str:
    return "both models" if count == 2 else f"all {count} models"


def size(count: float) -> str:
    """Bytes in words: "32.1 GiB", "5.4 MiB"."""
    return f"{count / GIB:.1f} GiB" if count >= 0.1 * GIB else f"{count / 2**20:.1f} MiB"


def _shortage(plans: Sequence[ModelPlan], length: int) -> list[str]:
    """What is missing, for each model that has no row that fits."""
    refused, short = [], []
    for plan in plans:
        if any(row.fits for row in plan.rows):
            continue
        counted = [row for row in plan.rows if row.need]
        if not counted:
            refused.append((plan.label, plan.rows[-1].refusal))
            continue
        best = max(counted, key=lambda r: r.need.kv / r.need.kv_per_token if r.need else 0)
        assert best.need is not None
        if best.need.kv < 0:
            missing = f"{size(-best.need.kv)} are missing before any request"
        else:
            missing = (
                f"only {best.need.tokens:,} tokens fit beside them, one request has {length:,}"
            )
        words = (
            f"at {way_words(best)}, the best way here, weights take {size(best.need.weights)} of "
            f"{size(best.need.capacity)}; {missing}"
        )
        short.append((plan.label, words))
    says = [f"{', '.join(labels)}: {reason}" for reason, labels in _grouped(refused).items()]
    for reason, labels in _grouped(short).items():
        do = "does" if len(labels) == 1 else "do"
        says.append(f"{', '.join(labels)} {do} not fit: {reason}")
    return says or ["no one way fits all of the models; plan for them one by one"]


def _with_remedies(plan: Plan, gpus: Sequence[Gpu]) -> Plan:
    """The plan with everything that would make it fit, each tried."""
    wish, remedies = plan.wish, []
    for change, words in _changes(plan):
        try:
            tried = _plans(plan.shapes, gpus, change, change.length or plan.length)
        except StudioError:
            continue  # a model that is quantised already has no such remedy
        if choose(tried, len(gpus), 1) is not None:
            remedies.append(words)
    found = None
    if gpus[0].name != CPU:
        label, shape = max(plan.shapes.items(), key=lambda item: item[1].parameters)
        found = several(label, shape, gpus, wish, plan.length)
        if found:
            remedies.append(f"{found.machines} such machines together, see the commands")
    return replace(plan, remedies=tuple(remedies), several=found)


def _changes(plan: Plan) -> list[tuple[Wish, str]]:
    wish = plan.wish
    changes = []
    if wish.quantisation == "none":
        changes.append((replace(wish, quantisation="fp8_per_tensor"), "fp8_per_tensor on line"))
    if wish.tp or wish.pp:
        changes.append((replace(wish, tp=None, pp=None), "leave the parallel sizes to the planner"))
    if wish.kv_cache == "auto" and plan.found.gpus:
        changes.append((replace(wish, kv_cache="fp8"), "the KV cache in fp8"))
    shorter = plan.length // 2
    if shorter >= 512:
        changes.append((replace(wish, length=shorter), f"requests of {shorter:,} tokens"))
    return changes
