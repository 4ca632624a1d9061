"""What to start: a model, the kind of engine, and how it is spread over the machine."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from studio.errors import StudioError, nearest

EngineKind = Literal["vllm", "embedded", "endpoint"]
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One engine to be.

    `model`: a folder or a Hub id; of an endpoint, the model's name there (empty: its only one).
    `label`: what people call it, by default the last part of `model`. `gpus`: the indices it may
    use, () for all. `quantisation`: vLLM's name of an on-line quantisation ("fp8_per_tensor").
    `max_model_len`: tokens of prompt and answer together, None for the model's own.
    `kv_cache`: what the cache of keys and values holds, "auto" as the model computes, or "fp8";
    `kv_cache_gib`: its memory in GiB; on GPUs None gives it what `gpu_memory_utilization` leaves,
    on a CPU None is 1. `enforce_eager`: start fast, answer
    slower; None: only on a CPU. `idle_minutes`: stop by itself when unused for so long. `keep`: go
    on when the studio ends, for the next one to find. `open_port`: listen on a port of 127.0.0.1
    for other programs, instead of a private socket. `url` and `key`: an endpoint's; `files`: the
    folder or Hub id of its model's tokenizer and templates, if that is not its name there.
    """

    model: str
    engine: EngineKind = "vllm"
    label: str = ""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpus: tuple[int, ...] = ()
    dtype: str = "auto"
    quantisation: str | None = None
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.92
    kv_cache: str = "auto"
    kv_cache_gib: float | None = None
    enforce_eager: bool | None = None
    idle_minutes: float | None = None
    keep: bool = False
    open_port: bool = False
    url: str = ""
    key: str | None = field(default=None, repr=False)
    files: str = ""

    def __post_init__(self) -> None:
        """Raise StudioError naming every value that cannot be."""
        problems = [text for wrong, text in self._checks() if wrong]
        if problems:
            raise StudioError.listing("the engine cannot be started so", problems)

    def _checks(self) -> list[tuple[bool, str]]:
        remote = self.engine == "endpoint"
        ranks = self.tensor_parallel_size * self.pipeline_parallel_size
        return [
            (self.engine not in get_args(EngineKind), f'there is no engine "{self.engine}"'),
            (not self.model and not remote, "the model is missing; give a folder or a Hub id"),
            (remote and not self.url, "an endpoint needs a URL; give http://HOST:PORT"),
            (not remote and bool(self.url), "a URL is for the engine endpoint only"),
            (
                self.tensor_parallel_size < 1 or self.pipeline_parallel_size < 1,
                "tensor and pipeline parallel sizes are whole numbers from 1",
            ),
            (
                self.engine == "embedded" and ranks > 1,
                "the embedded engine runs in one process; use vllm for tensor parallelism",
            ),
            (
                bool(self.gpus) and len(self.gpus) != ranks,
                f"{len(self.gpus)} GPUs are given for {ranks} ranks (tensor × pipeline parallel "
                "size); give as many as that",
            ),
            (self.dtype not in DTYPES, f'dtype is "{self.dtype}"; use one of {", ".join(DTYPES)}'),
            (
                self.kv_cache not in ("auto", "fp8"),
                f'the cache is to hold "{self.kv_cache}"; use auto or fp8',
            ),
            (
                self.engine == "embedded" and (self.quantisation, self.kv_cache) != (None, "auto"),
                "the embedded engine does not quantise; use vllm",
            ),
            (
                self.max_model_len is not None and self.max_model_len < 1,
                f"max_model_len is {self.max_model_len}; use a whole number from 1",
            ),
            (
                not 0 < self.gpu_memory_utilization <= 1,
                f"gpu_memory_utilization is {self.gpu_memory_utilization}; use a share up to 1",
            ),
            (
                self.kv_cache_gib is not None and self.kv_cache_gib <= 0,
                f"kv_cache_gib is {self.kv_cache_gib}; use a number above 0",
            ),
            (
                self.idle_minutes is not None and self.idle_minutes <= 0,
                f"idle_minutes is {self.idle_minutes}; use a number above 0, or none",
            ),
        ]

    @property
    def name(self) -> str:
        """What to call it on the screen."""
        return self.label or self.model.rstrip("/").rpartition("/")[2] or self.url

    def as_data(self) -> dict[str, Any]:
        """Every field for JSON, the key of an endpoint too."""
        return asdict(self) | {"gpus": list(self.gpus)}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "ModelSpec":
        """The spec that `as_data` gave; raises StudioError for unknown names."""
        known = [each.name for each in fields(cls)]
        for name in data:
            if name not in known:
                raise StudioError(f'"{name}" is not a field of an engine{nearest(name, known)}')
        return cls(**data | {"gpus": tuple(data.get("gpus", ()))})
