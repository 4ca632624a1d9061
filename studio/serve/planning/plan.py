"""What a plan is asked for and what it says; `planner` makes it."""

from collections.abc import Mapping
from dataclasses import dataclass

from studio.errors import StudioError
from studio.serve.planning.gpus import Found
from studio.serve.planning.memory import UTILISATION, Need, Way
from studio.serve.planning.quantisation import Quantisation, online
from studio.serve.planning.shapes import DTYPES, Shape

COUNTS = {
    "length": "the context in tokens",
    "requests": "the number of requests at once",
    "tp": "the tensor parallel size",
    "pp": "the pipeline size",
}
ONE, BESIDE, IN_TURN, IMPOSSIBLE = "one model", "side by side", "one at a time", "impossible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for.

    `length`: tokens of prompt and answer together (max_model_len); None for as many as the models
    allow, at most 4096. `requests` of that length at once should fit. `quantisation`: on-line, by
    name. `kv_cache`: "auto" or "fp8". `tp`, `pp`: None leaves them to the planner. `utilisation`:
    the share of each GPU that vLLM may take.
    """

    length: int | None = None
    requests: int = 8
    quantisation: str = "none"
    kv_cache: str = "auto"
    dtype: str | None = None
    tp: int | None = None
    pp: int | None = None
    utilisation: float = UTILISATION

    def __post_init__(self) -> None:
        """Raise StudioError naming every value that cannot be."""
        problems = [
            f"{words} is {value!r}; use a whole number of at least 1"
            for name, words in COUNTS.items()
            if (value := getattr(self, name)) is not None and (type(value) is not int or value < 1)
        ]
        if type(self.utilisation) not in (int, float) or not 0.1 <= self.utilisation <= 1:
            problems.append(
                f"the GPU memory to use is {self.utilisation!r}; use a share from 0.1 to 1"
            )
        if self.kv_cache not in ("auto", "fp8"):
            problems.append(f"kv_cache is {self.kv_cache!r}; use auto or fp8")
        if self.dtype not in (None, *DTYPES):
            problems.append(f"dtype is {self.dtype!r}; use one of {', '.join(DTYPES)}")
        if problems:
            raise StudioError.listing("the plan cannot be made", problems)
        online(self.quantisation)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to hold one model; `refusal` says why vLLM would refuse it, empty if it would not.

    `need` is None where it is refused. `requests`: of full length that fit at once.
    """

    way: Way
    need: Need | None
    refusal: str = ""
    requests: float = 0.0

    @property
    def fits(self) -> bool:
        """Whether it can start and answer one request of full length."""
        return self.need is not None and self.requests >= 1


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model's rows, the chosen one (None: none fits) and the numbers of the GPUs it gets."""

    label: str
    shape: Shape
    dtype: str
    quantisation: Quantisation
    rows: tuple[Row, ...]
    chosen: Row | None = None
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Several:
    """A model over several machines: how many, the way, and what to type.

    `commands`: (where, command) in the order in which to type them.
    """

    machines: int
    row: Row
    commands: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is recommended for `models` on what was `found`.

    `arrangement`: one of ONE, BESIDE, IN_TURN, IMPOSSIBLE. `why`: the reasons; for an impossible
    plan, what is missing. `remedies`: what would make it possible, each planned and found to fit.
    `several`: over several machines, where one is too small. `memory`: bytes of each GPU, or of
    this machine where there are none.
    """

    found: Found
    wish: Wish
    length: int
    memory: int
    models: tuple[ModelPlan, ...]
    arrangement: str
    why: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    several: Several | None = None

    def require(self) -> None:
        """Raise StudioError, with the reason and the remedies, if nothing fits."""
        if self.arrangement == IMPOSSIBLE:
            hints = f"; instead: {'; or '.join(self.remedies)}" if self.remedies else ""
            raise StudioError(". ".join(line.rstrip(".") for line in self.why) + hints)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The models' shapes by label."""
        return {model.label: model.shape for model in self.models}
