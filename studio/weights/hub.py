"""From the name of a model to a folder on this machine: a local folder or a Hub repository."""

import os
from pathlib import Path

from studio.errors import StudioError

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md")
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")


def local_folder(model: str) -> Path | None:
    """The folder `model` names, relative to the working directory; None if there is none."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith(("./", "../", "~")) or model.count("/") > 1:
        raise StudioError(f"{model}: there is no such folder; check the path")
    return None


def small_files(model: str) -> Path:
    """A folder with the model's config and tokenizer; from the Hub nothing larger is fetched.

    Raises StudioError if the model is neither a folder nor found in the Hub or its local cache.
    """
    return local_folder(model) or _snapshot(model, SMALL_FILES)


def all_files(model: str) -> Path:
    """A folder with the whole model, downloaded with progress on stderr where it is not here.

    Of a repository that has both, the safetensors files are taken and the .bin files left.
    """
    folder = local_folder(model)
    if folder is not None:
        return folder
    for pattern in WEIGHT_FILES:
        path = _snapshot(model, (*SMALL_FILES, pattern))
        if any(path.glob(pattern)):
            return path
    raise StudioError(f"{model}: the Hub repository has no safetensors or .bin weights")


def folder_here(model: str) -> Path | None:
    """The folder of a model that is on this machine; None otherwise. Nobody else is asked.

    Of a repository in the Hub's local cache, if its weights are there; a file may still be missing.
    """
    try:
        folder = local_folder(model)
    except StudioError:
        return None
    if folder is None:
        folder = _cached(model)
    return folder if folder and (folder / "config.json").is_file() else None


def _cached(model: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name, _, revision = model.partition("@")
    try:
        path = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return path if any(any(path.glob(pattern)) for pattern in WEIGHT_FILES) else None


def _snapshot(model: str, patterns: tuple[str, ...]) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = model.partition("@")
    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(patterns))
        )
    except HFValidationError as error:
        raise StudioError(
            f"{model}: neither a folder here nor a Hub id of the form owner/name"
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StudioError(
            f"{model}: not a folder here, not in the local Hub cache, and the Hub did not give it "
            f"({reason}); check the name, your connection and, for gated models, your token"
        ) from error
