"""Minutes and money: to download, merge, load and generate, and what a cheap machine can do.

Bytes over bandwidth, no more: the figures are as true as the bandwidths that are put in.

    generate: a step reads a GPU's weights once and gives one token to each request in flight, so
    tokens a second = requests · efficiency · memory bandwidth / weights on a GPU
"""

from collections.abc import Sequence
from dataclasses import dataclass

from studio.errors import StudioError
from studio.serve.planning.gpus import Gpu
from studio.serve.planning.plan import BESIDE, Plan

EFFICIENCY = 0.6  # of the memory's bandwidth that decoding reaches; a cautious guess
IN_FLIGHT = 32  # requests that the arena keeps under way
GPU, CPU = "GPU machine", "CPU machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Bandwidths in bytes a second, prices in the user's money an hour.

    `download`: from the Hub; `disk`: reading and writing, which bounds merging and loading.
    `tokens`: measured tokens a second of one model, None to estimate. `gpu_hour`, `cpu_hour`:
    prices of the machine with GPUs and of a cheap one without.
    """

    download: float = 100e6
    disk: float = 1e9
    tokens: float | None = None
    gpu_hour: float = 0.0
    cpu_hour: float = 0.0

    def __post_init__(self) -> None:
        """Raise StudioError for speeds that are not above 0 and prices below 0."""
        speeds = {"the download speed": self.download, "the disk's speed": self.disk}
        if self.tokens is not None:
            speeds["the tokens a second"] = self.tokens
        problems = [f"{k} is {v}; use a number above 0" for k, v in speeds.items() if not v > 0]
        prices = {
            "the GPU machine's price": self.gpu_hour,
            "the CPU machine's price": self.cpu_hour,
        }
        problems += [f"{k} is {v}; use 0 or more" for k, v in prices.items() if not v >= 0]
        if problems:
            raise StudioError.listing("the costs cannot be counted", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done: bytes of the sources to download and to merge, bytes of the result (both
    0 where nothing is merged), and `prompts` answered by each model with `tokens` tokens each.
    """

    sources: int = 0
    result: int = 0
    prompts: int = 0
    tokens: int = 300


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work: what, how long in seconds, on which machine it belongs, and its price."""

    name: str
    seconds: float
    machine: str
    price: float


def checkpoint_bytes(plan: Plan) -> int:
    """Bytes of all the models of a plan as files: 16 bits a number, unless packed."""
    total = 0.0
    for shape in plan.shapes.values():
        linear = shape.layers * shape.linear_per_layer
        rest = shape.parameters - linear
        total += shape.quantisation.bytes_of(linear, 2) + 2 * rest
    return round(total)


def speed(plan: Plan, gpus: Sequence[Gpu], rates: Rates) -> float | None:
    """Tokens a second of one model; None where the GPU's bandwidth is not known."""
    if rates.tokens is not None:
        return rates.tokens
    slowest = min((gpu.bandwidth for gpu in gpus), default=0.0)
    rows = [model.chosen for model in plan.models if model.chosen and model.chosen.need]
    if not slowest or not rows:
        return None
    each = []
    for row in rows:
        assert row.need is not None
        steps = EFFICIENCY * slowest / (row.need.weights * row.way.pp)
        each.append(steps * max(1, min(IN_FLIGHT, int(row.requests))))
    return min(each)


def steps(plan: Plan, work: Work, rates: Rates) -> tuple[Step, ...]:
    """What the work takes. Downloading and merging need no GPU: they belong on a cheap machine."""
    found = []

    def add(name: str, seconds: float, machine: str) -> None:
        hour = rates.gpu_hour if machine == GPU else rates.cpu_hour
        if seconds > 0:
            found.append(Step(name, seconds, machine, seconds / 3600 * hour))

    add("download", work.sources / rates.download, CPU)
    add("merge", (work.sources + work.result) / rates.disk if work.result else 0.0, CPU)
    serving = GPU if plan.found.gpus else CPU
    add("load", checkpoint_bytes(plan) / rates.disk, serving)
    tokens = speed(plan, plan.found.gpus, rates)
    if tokens:
        rounds = 1 if plan.arrangement == BESIDE else len(plan.models)
        add("generate", rounds * work.prompts * work.tokens / tokens, serving)
    return tuple(found)


def saved(done: Sequence[Step], rates: Rates) -> float:
    """Money saved by doing on the cheap machine what needs no GPU."""
    hours = sum(step.seconds for step in done if step.machine == CPU) / 3600
    return max(0.0, hours * (rates.gpu_hour - rates.cpu_hour))
