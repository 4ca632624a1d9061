"""The model an engine is to load: its folder on this machine, and what can be told beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.serve.engine import Identity
from studio.serve.planning.quantisation import online
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.vllm_command import Machine
from studio.serve.special_tokens import SpecialTokens, end_tokens, tokens_of
from studio.weights import Checkpoint, hub
from studio.weights.download import OnBytes, download, unheard
from studio.weights.fingerprint import fingerprint
from studio.weights.strict_json import read_object

WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on this machine.

    `reloads`: it is a plain checkpoint, whose weights can be put in place of another's.
    `quantisation`: how the files themselves are packed, by their own config. `ends`: the ids of
    the tokens that end an answer.
    """

    path: Path
    fingerprint: str
    reloads: bool
    quantisation: str | None = None
    dtype: str | None = None
    ends: tuple[int, ...] = ()
    tokens: SpecialTokens = SpecialTokens()


def model_files(model: str, on_bytes: OnBytes = unheard) -> ModelFiles:
    """The model of that name, downloaded if it is not here, as `download` does.

    Raises StudioError if it is not whole.
    """
    path = download(model, on_bytes).resolve()
    config = read_object(path / "config.json")
    packed = _packing(config)
    return ModelFiles(
        path=path,
        fingerprint=_packed_mark(path) if packed else Checkpoint.open(path, model).fingerprint(),
        reloads=not packed,
        quantisation=packed,
        dtype=next((str(v) for k in ("dtype", "torch_dtype") if (v := config.get(k))), None),
        ends=end_tokens(path),
        tokens=tokens_of(path),
    )


def _packed_mark(path: Path) -> str:
    """The fingerprint of a quantised model, whose tensors the studio does not know."""
    files = sorted(file for pattern in WEIGHTS for file in path.glob(pattern))
    return fingerprint([path / "config.json", *files])


def check(spec: ModelSpec) -> None:
    """Raise StudioError for what an engine would refuse after a download and half a minute.

    Of a model that is not here, only the small files are fetched.
    """
    config = read_object(hub.small_files(spec.model) / "config.json")
    heads, size = _whole(config.get("num_attention_heads")), spec.tensor_parallel_size
    if heads is not None and heads % size:
        raise StudioError(
            f"{spec.name}: its {heads} attention heads cannot be shared evenly by {size} "
            f"ranks; use a tensor parallel size that divides {heads}"
        )
    packed = _packing(config)
    online(spec.quantisation or "none")
    if packed is not None and spec.quantisation is not None:
        raise StudioError(
            f"{spec.name}: its files are quantised already ({packed}); start it "
            f"without {spec.quantisation}"
        )
    if packed is not None and spec.engine == "embedded":
        raise StudioError(
            f"{spec.name}: quantised ({packed}); the embedded engine cannot run it, use vllm"
        )
    longest = _longest(config)
    if longest is not None and (spec.max_model_len or 0) > longest:
        raise StudioError(
            f"{spec.name}: max_model_len is {spec.max_model_len}, but the model was made for at "
            f"most {longest} tokens; set max_model_len to {longest} or less"
        )


def check_exchange(spec: ModelSpec) -> None:
    """`check` for weights that are to be put in place of those of an engine made as `spec`."""
    check(spec)
    if _packing(read_object(hub.small_files(spec.model) / "config.json")) is not None:
        raise StudioError(f"{spec.name}: quantised files cannot be loaded in place")


def _packing(config: Mapping[str, Any]) -> str | None:
    """How the files of a model with this config are quantised; None if they are not."""
    packed = config.get("quantization_config")
    method = packed.get("quant_method") if isinstance(packed, dict) else None
    return str(method or "unknown") if packed else None


def _longest(config: Mapping[str, Any]) -> int | None:
    """The most tokens at a time; None where the engine has to tell."""
    scaled = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if "'factor'" in repr(scaled) or config.get("model_max_length"):
        return None
    return _whole(config.get("max_position_embeddings"))


def resolved_dtype(spec: ModelSpec, files: ModelFiles, machine: Machine) -> str:
    """What the engine is to compute in: as asked, else as the files, else what is safe here.

    float32 files are computed in bfloat16 on a GPU. On a CPU the embedded engine always takes
    float32, and vLLM does where its bfloat16 cannot be trusted.
    """
    if spec.dtype != "auto":
        return spec.dtype
    if not machine.has_gpu and (spec.engine == "embedded" or not machine.safe_bfloat16):
        return "float32"
    if files.dtype in ("bfloat16", "float16"):
        return files.dtype
    return "bfloat16" if machine.has_gpu else "float32"


def reloads_in_place(spec: ModelSpec, files: ModelFiles) -> bool:
    """Whether other weights can be put into an engine with these.

    On-line quantisation packs weights as they come: replacing those is untried.
    """
    return files.reloads and spec.quantisation is None


def identity_of(spec: ModelSpec, files: ModelFiles) -> Identity:
    """Who answers, if an engine made as `spec` says has these files in it."""
    cache = "" if spec.kv_cache == "auto" else f"{spec.kv_cache} cache"
    packed = (spec.quantisation or files.quantisation, cache)
    return Identity(
        label=spec.name,
        engine=spec.engine,
        dtype=spec.dtype,
        quantisation=", ".join(filter(None, packed)) or None,
        fingerprint=files.fingerprint,
        tensor_parallel_size=spec.tensor_parallel_size,
        ends=files.ends,
    )


def _whole(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
