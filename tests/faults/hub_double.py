"""A small double of the Hugging Face Hub: what snapshot_download asks for, and a log of it.

Like the Hub it sends who wants weights on to another host, which must not see the reader's token.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

ELSEWHERE = "/elsewhere"


class Hub:
    """The repositories by name, each a folder, and the paths that were given as a whole.

    `ranges`: the model and the bytes given of each request for a part of a file.
    `refuse`: names of files that may not be downloaded; `cut`: of those that break off; `whole`: of
    those that are never given in parts; `slow`: of those that come in trickles, 6 MB a second.
    `sent`: the bytes of weights that left for good.
    """

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        self.repositories = dict(repositories)
        self.requests: list[str] = []
        self.ranges: list[tuple[str, int]] = []
        self.refuse: set[str] = set()
        self.cut: set[str] = set()
        self.whole: set[str] = set()
        self.slow: set[str] = set()
        self.sent = 0
        self.endpoint = ""

    def environment(self, home: Path) -> dict[str, str]:
        """What makes a process know this Hub only, with its cache in `home`."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "hf_secret",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def downloads(self) -> list[str]:
        """The files that were fetched, as owner/name/file, in order."""
        parts = [path.split("/resolve/") for path in self.requests if "/resolve/" in path]
        return [f"{model.strip('/')}/{rest.partition('/')[2]}" for model, rest in parts]

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, type and body for a path."""
        for name, folder in self.repositories.items():
            if path.startswith(f"/api/models/{name}/tree/"):
                return 200, "application/json", json.dumps(_tree(folder)).encode()
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                return 200, "application/json", json.dumps(_about(name, folder)).encode()
            if path.startswith(f"/{name}/resolve/{_commit(name)}/"):
                file = folder / path.split("/", 5)[5]
                if not file.exists():
                    return 404, "application/json", b'{"error": "Entry not found"}'
                if file.name in self.refuse:
                    return 403, "application/json", b'{"error": "Access is restricted"}'
                return 200, "application/octet-stream", file.read_bytes()
        return 404, "application/json", b'{"error": "Repository not found"}'

    def note(self, path: str, part: bytes | None) -> None:
        """Remember a request."""
        if part is None:
            self.requests.append(path)
        else:
            self.ranges.append((path.partition("/resolve/")[0].strip("/"), len(part)))


def _part(wanted: str | None, body: bytes) -> bytes | None:
    """The part of the body that a Range header asks for; None without one."""
    if wanted is None:
        return None
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    return body[int(first) : int(last) + 1 if last else None]


def _headers(path: str, status: int, body: bytes, wanted: str | None) -> Iterator[tuple[str, str]]:
    if status == 206 and wanted is not None:
        first = int(wanted.removeprefix("bytes=").partition("-")[0])
        last = first + len(_part(wanted, body) or b"") - 1
        yield "Content-Range", f"bytes {first}-{last}/{len(body)}"
    if status == 404:
        yield "X-Error-Code", "EntryNotFound" if "/resolve/" in path else "RepoNotFound"
    elif "/resolve/" in path:
        mark = "X-Linked-ETag" if status == 302 else "ETag"
        yield mark, f'"{hashlib.sha1(body).hexdigest()}"'
        yield "X-Repo-Commit", path.removeprefix(ELSEWHERE).split("/")[4]
    if status == 302:
        yield "X-Linked-Size", str(len(body))
    elif status == 403:
        yield "X-Error-Code", "GatedRepo"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:  # noqa: N802
        path, wanted = unquote(urlparse(self.path).path), self.headers.get("Range")
        is_elsewhere = path.startswith(ELSEWHERE)
        status, kind, body = self.hub.answer(path.removeprefix(ELSEWHERE))
        name, is_weights = Path(path).name, path.endswith((".safetensors", ".bin"))
        if is_elsewhere and "Authorization" in self.headers:
            status = 400
        if status == 200 and is_weights and not is_elsewhere:
            status, given = 302, b""
        elif status == 200 and wanted and name not in self.hub.whole:
            given = _part(wanted, body) or b""
            status = 206 if given else 416
        else:
            given = body
        if self.command == "GET" and status in (200, 206):
            self.hub.note(path.removeprefix(ELSEWHERE), given if status == 206 else None)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for key, value in _headers(path, status, body, wanted):
            self.send_header(key, value)
        if status == 302:
            there = f"http://localhost:{self.server.server_address[1]}"
            self.send_header("Location", f"{there}{ELSEWHERE}{self.path}")
        self.send_header("Content-Length", str(len(given)))
        self.end_headers()
        if self.command == "GET":
            self._send(given[: len(given) // 2] if name in self.hub.cut else given, path)
            self.close_connection = name in self.hub.cut

    do_HEAD = do_GET  # noqa: N815

    def _send(self, body: bytes, path: str) -> None:
        for begin in range(0, len(body), 1 << 16):
            try:
                self.wfile.write(body[begin : begin + (1 << 16)])
            except ConnectionError:  # the reader has seen enough
                self.close_connection = True
                return
            self.hub.sent += path.startswith(ELSEWHERE) * len(body[begin : begin + (1 << 16)])
            time.sleep(0.01 * (Path(path).name in self.hub.slow))

    def log_message(self, format: str, *arguments: object) -> None:
        """Not to stderr."""


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """The double, listening on a free port of this machine."""
    hub = Hub(repositories)

    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fill_cache(home: Path, name: str, folder: Path) -> None:
    """Lay a model into the local cache as the Hub's own client does."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / _commit(name)
    for part in (repository / "blobs", repository / "refs", snapshot):
        part.mkdir(parents=True)
    (repository / "refs" / "main").write_text(_commit(name))
    for file in folder.iterdir():
        data = file.read_bytes()
        blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))


def _commit(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def _about(name: str, folder: Path) -> dict[str, object]:
    files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
    return {"id": name, "modelId": name, "sha": _commit(name), "siblings": files, "tags": []}


def _tree(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        found.append({"type": "file", "path": file.name, "size": len(data), "oid": oid})
    return found
