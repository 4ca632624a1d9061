"""Whether one model can take the place of another in a running engine: told from files alone."""

import json
from pathlib import Path

from studio.errors import StudioError
from studio.weights import Checkpoint
from studio.weights.strict_json import read_object, shown

# Keys of config.json that say who made the model, not how it computes. The checkpoint's dtype is
# one: the engine's own is fixed, whatever the files hold.
IDLE_KEYS = frozenset(
    {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
ADDED = "added_tokens.json"
MOST_SHOWN = 5


def kind(folder: Path) -> str:
    """What of config.json says how the model computes: models of one kind may take turns in one
    engine, unless their tensors or tokenizers differ."""
    config = read_object(folder / "config.json")
    return json.dumps({k: v for k, v in config.items() if k not in IDLE_KEYS}, sort_keys=True)


def differences(resident: Path, other: Path) -> list[str]:
    """What forbids to load `other` where `resident` is; empty if nothing does.

    Compares config.json, the tokenizer's files and every tensor's name and shape; reads no
    weights. Raises StudioError if one of them is not a whole checkpoint.
    """
    first, second = Checkpoint.open(resident, resident.name), Checkpoint.open(other, other.name)
    return [
        *_config_differences(first, second),
        *_tensor_differences(first, second),
        *_tokenizer_differences(resident, other),
    ][:MOST_SHOWN]


def _config_differences(first: Checkpoint, second: Checkpoint) -> list[str]:
    keys = sorted(({*first.config} | {*second.config}) - IDLE_KEYS)
    return [
        f"{second.label}: config.json has {key} = {shown(second.config.get(key))}, the engine was "
        f"started with {shown(first.config.get(key))}; start an engine for it instead"
        for key in keys
        if first.config.get(key) != second.config.get(key)
    ]


def _tensor_differences(first: Checkpoint, second: Checkpoint) -> list[str]:
    shapes = [{name: info.shape for name, info in c.tensors.items()} for c in (first, second)]
    return [
        f"{second.label}: {name} has shape {_shape(shapes[1].get(name))}, in the engine it has "
        f"{_shape(shapes[0].get(name))}; start an engine for it instead"
        for name in sorted({*shapes[0]} | {*shapes[1]})
        if shapes[0].get(name) != shapes[1].get(name) and not name.endswith("rotary_emb.inv_freq")
    ]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none (it is missing)" if shape is None else "×".join(map(str, shape))


def _tokenizer_differences(resident: Path, other: Path) -> list[str]:
    """The vocabularies must agree: the engine keeps the tokenizer it was started with."""
    name = next((n for n in TOKENIZER_FILES if (resident / n).is_file()), None)
    if name is None or not (other / name).is_file():
        return [
            f"{other.name}: {name or TOKENIZER_FILES[0]} is missing; copy the tokenizer's files"
        ]
    if name == TOKENIZER_FILES[0]:
        ours, theirs = _tokenizer(resident / name), _tokenizer(other / name)
    else:
        ours, theirs = (_bytes(folder, name) for folder in (resident, other))
    if ours != theirs:
        return [
            f"{other.name}: its tokenizer differs from the one the engine was started with; start "
            "an engine for it instead"
        ]
    return []


def _tokenizer(path: Path) -> object:
    """What decides between text and tokens; truncation and padding are the caller's."""
    return {k: v for k, v in read_object(path).items() if k not in ("truncation", "padding")}


def _bytes(folder: Path, name: str) -> tuple[bytes, bytes]:
    added = folder / ADDED
    try:
        return (folder / name).read_bytes(), added.read_bytes() if added.is_file() else b""
    except OSError as error:
        raise StudioError(f"{folder}: the tokenizer cannot be read ({error.strerror})") from error
