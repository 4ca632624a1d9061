"""A small double of the Hugging Face Hub: what snapshot_download asks for, and a log of it."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse


class Hub:
    """The repositories by name, each a folder, and the paths that were asked for as a whole.

    `ranges`: the model and the bytes given of each request for a part of a file.
    `refuse`: names of files that may not be downloaded; `cut`: of those that break off.
    """

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        self.repositories = dict(repositories)
        self.requests: list[str] = []
        self.ranges: list[tuple[str, int]] = []
        self.refuse: set[str] = set()
        self.cut: set[str] = set()
        self.endpoint = ""

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


def _headers(
    path: str, answer: tuple[int, str, bytes], wanted: str | None
) -> Iterator[tuple[str, str]]:
    status, kind, body = answer
    yield "Content-Type", kind
    if status == 206 and wanted is not None:
        yield "Content-Range", f"{wanted.replace('=', ' ')}/{len(body)}"
    if status == 404:
        yield "X-Error-Code", "EntryNotFound" if "/resolve/" in path else "RepoNotFound"
    elif "/resolve/" in path:
        yield "ETag", f'"{hashlib.sha1(body).hexdigest()}"'
        yield "X-Repo-Commit", path.split("/")[4]
    elif status == 403:
        yield "X-Error-Code", "GatedRepo"


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """The double, listening on a free port of this machine."""
    hub = Hub(repositories)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            path = unquote(urlparse(self.path).path)
            found = hub.answer(path)
            part = _part(self.headers.get("Range"), found[2]) if found[0] == 200 else None
            status, body = (206, part) if part is not None else (found[0], found[2])
            if self.command == "GET":
                hub.note(path, part)
            self.send_response(status)
            for name, value in _headers(path, (status, *found[1:]), self.headers.get("Range")):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET" and Path(path).name in hub.cut:
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
