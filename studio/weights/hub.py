"""From the name of a model to a folder on this machine: a local folder or a Hub repository."""

import http
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.weights.strict_json import shown

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md")
CACHE_VARIABLE = "HF_HUB_CACHE"  # names the folder of downloads to the Hub's own client
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")
_SECONDS_BETWEEN = 0.5
_NOWHERE = "not a folder here, not in the local Hub cache, and the Hub did not give it"
_NO_WEIGHTS = "its weights are not all on this machine, and the Hub did not give them"
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def local_folder(model: str) -> Path | None:
    """The folder `model` names, relative to the working directory; None if there is none."""
    path = Path(model).expanduser()
    try:
        if path.is_dir():
            return path
    except (OSError, ValueError) as error:  # such as a name that is too long
        raise StudioError(f"{shown(model)}: no folder can have this name ({error})") from error
    if path.is_absolute() or model.startswith(("./", "../", "~")) or model.count("/") > 1:
        raise StudioError(f"{model}: there is no such folder; check the path")
    return None


def small_files(model: str) -> Path:
    """A folder with the model's config and tokenizer; from the Hub nothing larger is fetched.

    Raises StudioError if the model is neither a folder nor found in the Hub or its local cache.
    """
    return local_folder(model) or _snapshot(model, SMALL_FILES, _NOWHERE)


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
    _keep_quiet()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    name, _, revision = model.partition("@")
    try:
        path = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
    return path if any(any(path.glob(pattern)) for pattern in WEIGHT_FILES) else None


def fetch(model: str, files: Sequence[str], on_bytes: Callable[[int], None]) -> None:
    """Download these files of the repository, its config and its tokenizer.

    `on_bytes(count)` is called now and then with what has come since. KeyboardInterrupt, or what
    `on_bytes` raises, ends the download as soon as the files under way have got their next
    megabytes. Raises StudioError if the Hub does not give them.
    """
    blobs = small_files(model).parents[1] / "blobs"
    before, ended, is_over = _size(blobs), threading.Event(), False
    with ThreadPoolExecutor(1) as pool:
        download = pool.submit(_snapshot, model, (*SMALL_FILES, *files), _NO_WEIGHTS, ended)
        try:
            while not is_over:
                is_over = bool(wait([download], _SECONDS_BETWEEN).done)
                now = _size(blobs)
                on_bytes(now - before)
                before = now
        finally:
            ended.set()
            if not download.done():
                from huggingface_hub.utils._xet import abort_xet_session

                abort_xet_session()  # type: ignore[no-untyped-call]
    download.result()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # a finished download has just got its name
            continue
    return total


def read_part(
    model: str, snapshot: Path, file: str, begin: int, count: int
) -> tuple[bytes, int] | None:
    """`count` bytes of a file of the repository, fewer at its end, and the size of the file.

    `snapshot`: the folder of its small files, which names the revision. None if the repository has
    no such file. Raises StudioError also where a server would give only the whole file.
    """
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status

    url = hf_hub_url(model.partition("@")[0], file, revision=snapshot.name)
    wanted = {"range": f"bytes={begin}-{begin + count - 1}", "accept-encoding": "identity"}
    headers = {**build_hf_headers(), **wanted}
    with (
        _clear_errors(model, _NO_WEIGHTS),
        get_session().stream("GET", url, headers=headers) as response,
    ):
        try:
            hf_raise_for_status(response)
        except EntryNotFoundError:
            return None
        given = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if response.status_code != http.HTTPStatus.PARTIAL_CONTENT or given is None:
            raise StudioError(
                f"{model}: {file} is not given in parts there, so it cannot be checked without "
                f"downloading it; if you want that, run: hf download {model.partition('@')[0]}"
            )
        first, last, size = map(int, given.groups())
        if first != begin or last != min(begin + count, size) - 1:
            raise OSError(f"{file}: bytes {first} to {last} came instead of {begin} and following")
        return response.read(), size


def _snapshot(
    model: str, patterns: tuple[str, ...], lack: str, ended: threading.Event | None = None
) -> Path:
    """The folder of the repository's files of these patterns, fetched if they are not here.

    `lack`: see `_clear_errors`. Gives up, with KeyboardInterrupt, when `ended` is set.
    """
    _keep_quiet()
    from huggingface_hub import snapshot_download

    name, _, revision = model.partition("@")
    with _clear_errors(model, lack):
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(patterns),
                tqdm_class=_bar(ended or threading.Event()),
            )
        )


def _keep_quiet() -> None:
    """Let the Hub's client tell nobody of this machine, and show bars on terminals only.

    It reads its environment once, when it is first imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()


def _bar(ended: threading.Event) -> "type[tqdm]":
    """The client's progress bar. It is updated by each thread that downloads, and can end it."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0  # each class would start a thread that watches for stalled bars

        def update(self, n: float | None = 1) -> Any:
            if ended.is_set():
                raise KeyboardInterrupt
            return super().update(n)

    return Bar


@contextmanager
def _clear_errors(model: str, lack: str) -> Iterator[None]:
    """What goes wrong between here and the Hub, as StudioError; `lack`: what is then missing."""
    import httpx2
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise StudioError(
            f"{model}: neither a folder here nor a Hub id of the form owner/name"
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StudioError(
            f"{model}: {lack} ({reason}); check the name, your connection and, for gated "
            "models, your token"
        ) from error
