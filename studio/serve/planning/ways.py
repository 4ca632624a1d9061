"""Every way to hold a model on the GPUs at hand, and the best of them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from studio.errors import StudioError
from studio.serve.planning.gpus import GIB, Found, Gpu
from studio.serve.planning.memory import (
    BLOCK,
    Need,
    Way,
    batch_of,
    kv_per_token,
    need,
    refusal,
    stage_weights,
)
from studio.serve.planning.plan import ModelPlan, Row, Wish
from studio.serve.planning.quantisation import LEAST_CAPABILITY, NEEDS, online
from studio.serve.planning.shapes import DTYPES, Shape

LEAST_SHARE = 2 * GIB  # with less weight than this on a GPU, talking takes longer than computing
CPU = "CPU"
PROCESS = GIB  # an estimate: Python, torch and vLLM in each process of an engine on the CPU
CPU_BATCH = 2048, 128
NO_PIPELINE = "no pipeline runs on the CPU (vLLM 0.32 was tried); use tensor parallelism"


def host_memory() -> int:
    """Bytes of memory that are free for programs on this machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def as_processor(memory: int) -> Gpu:
    """The processor as a place to hold models in."""
    return Gpu(0, CPU, memory, memory, 0.0)


def alike(found: Found, utilisation: float) -> tuple[list[Gpu], list[str]]:
    """The GPUs to use, and notes on those left out: an engine needs GPUs of one kind, and free.

    Raises StudioError if all are in use.
    """
    kinds = [(gpu.name, gpu.memory) for gpu in found.gpus]
    best = max(kinds, key=lambda kind: kinds.count(kind) * kind[1])
    gpus: list[Gpu] = []
    notes: list[str] = []
    for gpu in found.gpus:
        if (gpu.name, gpu.memory) != best:
            notes.append(f"GPU {gpu.index} ({gpu.name}) is left out: it is unlike the others")
        elif gpu.free < gpu.memory * utilisation:
            taken = (gpu.memory - gpu.free) / GIB
            notes.append(f"GPU {gpu.index} is left out: {taken:.1f} GiB of it are in use")
        else:
            gpus.append(gpu)
    if not gpus:
        raise StudioError(
            f"all GPUs are in use: each must have {100 * utilisation:.0f} % of its memory free; "
            "stop what runs there (nvidia-smi shows it)"
        )
    return gpus, notes


def model_plan(label: str, shape: Shape, gpus: Sequence[Gpu], wish: Wish, length: int) -> ModelPlan:
    """A model's rows: each tensor parallel size, with each pipeline that the GPUs allow.

    Raises StudioError for an on-line quantisation of what is quantised.
    """
    wanted = online(wish.quantisation)
    if shape.quantisation.bits and wanted.bits:
        raise StudioError(
            f"{label}: already quantised ({shape.quantisation}), so {wish.quantisation} on line "
            "cannot be added; leave it out, or take the unquantised original"
        )
    packing = wanted if wanted.bits else shape.quantisation
    dtype = wish.dtype or ("bfloat16" if shape.dtype == "float32" else shape.dtype)
    kv_bytes = 1 if wish.kv_cache == "fp8" else DTYPES[dtype]
    on_cpu = gpus[0].name == CPU
    batch, sequences = CPU_BATCH if on_cpu else batch_of(gpus[0].memory, gpus[0].name)
    rows = [
        row(
            shape,
            Way(tp, pp, dtype, packing, kv_bytes, batch, sequences, wish.utilisation),
            gpus,
            length,
            wish.requests,
        )
        for tp in ([wish.tp] if wish.tp else range(1, len(gpus) + 1))
        for pp in ([wish.pp] if wish.pp else range(1, max(1, len(gpus) // tp) + 1))
    ]
    return ModelPlan(label, shape, dtype, packing, tuple(rows))


def row(shape: Shape, way: Way, gpus: Sequence[Gpu], length: int, requests: int) -> Row:
    """One way, counted. On a processor the cache is no larger than `requests` of `length` need."""
    on_cpu = gpus[0].name == CPU
    why = refusal(shape, way) or incapable(way, gpus[0])
    if not why and not on_cpu and way.gpus > len(gpus):
        why = f"takes {way.gpus} GPUs, there {'is' if len(gpus) == 1 else 'are'} {len(gpus)}"
    if why:
        return Row(way, None, why)
    found = (host_need if on_cpu else need)(shape, way, gpus[0].memory)
    if on_cpu:
        blocks = -(-requests * length // BLOCK)
        found = replace(found, kv=min(found.kv, blocks * BLOCK * found.kv_per_token))
    return Row(way, found, "", found.tokens / length)


def incapable(way: Way, gpu: Gpu) -> str:
    """Why this GPU, or the processor, cannot compute so; empty if it can."""
    name = way.quantisation.name
    if gpu.name == CPU:
        return beyond_cpu(way.pp, name if way.quantisation.online else "")
    least = NEEDS.get(name, LEAST_CAPABILITY)
    if way.quantisation.bits and gpu.capability < least:
        return f"{name} needs compute capability {least}, {gpu.name} has {gpu.capability}"
    if way.dtype == "bfloat16" and gpu.capability < 8:
        return f"bfloat16 needs compute capability 8.0, {gpu.name} has {gpu.capability}"
    return ""


def beyond_cpu(pp: int, quantisation: str) -> str:
    """Why the processor cannot compute so; empty if it can. `quantisation`: on line, or empty."""
    if pp > 1:
        return NO_PIPELINE
    return f"{quantisation} does not run on the CPU" if quantisation else ""


def host_need(shape: Shape, way: Way, memory: int) -> Need:
    """What an engine on the CPU takes of the machine's memory, all its processes together."""
    weights = sum(stage_weights(shape, way)) * way.tp
    fixed = PROCESS * (way.gpus + 2)
    left = round(memory * way.utilisation) - weights - fixed
    return Need(memory, weights, 0, fixed, left, kv_per_token(shape, way) * way.gpus)


def choose(plans: Sequence[ModelPlan], most: int, requests: int) -> int | None:
    """The best row for all of the models: its index, or None if no row fits them all.

    One row for all, because answers of different tensor parallel sizes differ a little. It takes
    at most `most` GPUs. Of those that hold `requests`: no pipeline if possible, then as many GPUs
    as pay, since more of them answer faster. Otherwise the row that holds most.
    """
    together = list(enumerate(zip(*(plan.rows for plan in plans), strict=True)))
    room = {i: min(r.requests for r in rows) for i, rows in together}
    ways = {i: rows[0].way for i, rows in together}
    fit = [i for i, rows in together if all(r.fits for r in rows) and ways[i].gpus <= most]
    enough = [i for i in fit if room[i] >= requests]
    if not enough:
        return max(fit, key=lambda i: room[i], default=None)
    shortest = min(ways[i].pp for i in enough)
    enough = [i for i in enough if ways[i].pp == shortest]
    share = {i: min(r.need.weights for r in rows if r.need) for i, rows in together if i in enough}
    paying = [i for i in enough if share[i] >= LEAST_SHARE]
    if paying:
        return max(paying, key=lambda i: ways[i].tp)
    return min(enough, key=lambda i: ways[i].tp)
