"""What gets past the door: the real page behind the real server, asked by hand."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from studio.settings import Settings
from studio.ui.app import Studio, build
from studio.ui.merge.presets import presets
from studio.ui.merge.recipe_json import recipe_to_json
from tests.e2e.conftest import STAND_IN, free_port

TOKEN = "a token for the tests"
DEMO = recipe_to_json(presets()["demo"].recipe)
FUNCTION = "/gradio_api/component_server"


@pytest.fixture(scope="module", params=["open", "closed", "owned"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def studio(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    settings = Settings(
        host="127.0.0.1" if kind == "open" else "0.0.0.0",
        port=free_port(),
        data_dir=tmp_path_factory.mktemp("data"),
        owner_token=TOKEN if kind == "owned" else None,
    )
    studio = build(settings, (sys.executable, STAND_IN))
    studio.launch()
    yield studio
    studio.close()


@pytest.fixture
def client(studio: Studio) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{studio.settings.port}", timeout=30) as client:
        yield client


def component(client: httpx.Client, elem_id: str) -> int:
    """The number of a component of the page, as anyone can read it there."""
    parts = client.get("/config").json()["components"]
    return int(next(part["id"] for part in parts if part["props"].get("elem_id") == elem_id))


def call(client: httpx.Client, function: str, **data: object) -> dict[str, Any]:
    """Call a server function as the page does, or as anyone can."""
    number = component(client, "head" if function == "who" else "merge-tab")
    body = {"data": data, "component_id": number, "session_hash": "x", "fn_name": function}
    answer = client.post(FUNCTION, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def strange(model: str) -> dict[str, Any]:
    recipe: dict[str, Any] = json.loads(json.dumps(DEMO))
    recipe["stages"][0]["slices"][0]["inputs"][0]["model"] = model
    return recipe


FORGED = [None, "", "wrong", True, 0, ["a"], {"$ne": ""}, "None"]


@pytest.mark.parametrize("token", FORGED)
@pytest.mark.parametrize(
    "function",
    ["check_merge", "report", "start_merge", "cancel_merge", "measure", "cancel_measuring"],
)
@pytest.mark.parametrize("kind", ["closed", "owned"], indirect=True)
def test_only_the_owner_starts_or_stops_anything(
    client: httpx.Client, studio: Studio, kind: str, function: str, token: object
) -> None:
    answer = call(client, function, recipe=DEMO, name="slow", number=0, token=token)
    assert set(answer) == {"error"}
    assert ("enter the owner token" if kind == "owned" else "STUDIO_OWNER_TOKEN") in answer["error"]
    assert studio.jobs.snapshot().number == 0
    made = studio.settings.data_dir.iterdir()
    assert [path.name for path in made] in ([], ["engines"])  # its folder is made at the start


def test_owner_merges_and_visitors_see_no_names(
    client: httpx.Client, studio: Studio, kind: str
) -> None:
    if kind == "closed":
        assert "error" in call(client, "start_merge", recipe=DEMO, name="slow", token=TOKEN)
        return
    token = TOKEN if kind == "owned" else None
    started = call(client, "start_merge", recipe=DEMO, name="slow", token=token)
    assert (started["job"]["state"], started["job"]["name"]) == ("running", "slow")
    seen = call(client, "state", token="wrong")
    assert seen["job"]["state"] == "running"
    assert seen["access"]["owner"] is (kind == "open")
    if kind == "owned":
        assert "slow" not in json.dumps(seen) and str(studio.settings.data_dir) not in str(seen)
        assert "error" in call(client, "cancel_merge", number=1, token="wrong")
    assert call(client, "cancel_merge", number=7, token=token)["job"]["state"] == "running"
    assert call(client, "cancel_merge", number=1, token=token)["job"]["state"] == "cancelling"


def test_visitors_tune_shipped_models_only(client: httpx.Client, kind: str, tmp_path: Path) -> None:
    assert call(client, "preview", recipe=DEMO, layers=4)["layers"] == 4
    for name in ("preview", "tensors", "write_yaml"):
        answer = call(client, name, recipe=strange(str(tmp_path)), layers=4)
        assert ("visitors can tune" in answer.get("error", "")) is (kind != "open")
    text = f"merge_method: linear\nmodels: [{{model: {tmp_path}, parameters: {{weight: 1}}}}]"
    answer = call(client, "read_yaml", text=text, file="x.yaml")
    assert ("visitors can tune" in answer.get("error", "")) is (kind != "open")


def test_visitors_see_task_vectors_of_shipped_bases_only(
    client: httpx.Client, kind: str, tmp_path: Path
) -> None:
    answer = call(client, "preview", recipe=DEMO, layers=4, base="demo/models/base")
    assert "error" not in answer
    answer = call(client, "preview", recipe=DEMO, layers=4, base=str(tmp_path))
    assert ("use other base models" in answer.get("error", "")) is (kind != "open")
    for base in ("", 7, ["a"], "x" * 1001):
        assert "a base model is a name" in call(client, "preview", recipe=DEMO, base=base)["error"]


@pytest.mark.parametrize("layers", [0, -1, 401, 1.5, "4", None, True])
def test_assumed_layers_are_checked(client: httpx.Client, layers: object) -> None:
    assert "whole number" in call(client, "preview", recipe=DEMO, layers=layers)["error"]


def test_library_is_the_owners(client: httpx.Client, studio: Studio, kind: str) -> None:
    for function in ("library", "open_recipe", "save_recipe", "delete_recipe"):
        answer = call(client, function, recipe=DEMO, name="mine", note="", token="wrong")
        assert (set(answer) == {"error"}) is (kind != "open" or function == "open_recipe")
    if kind == "closed":
        assert not (studio.settings.data_dir / "recipes").exists()
        return
    token = TOKEN if kind == "owned" else None
    saved = call(client, "save_recipe", recipe=DEMO, name="mine", note="a note", token=token)
    assert [(entry["name"], entry["note"]) for entry in saved["entries"]] == [("mine", "a note")]
    taken = call(client, "save_recipe", recipe=DEMO, name="mine", note="", token=token)
    assert taken == {"exists": True}
    assert call(client, "open_recipe", name="mine", token=token)["recipe"] == DEMO
    assert call(client, "delete_recipe", name="mine", token=token) == {"entries": []}


def test_chart_library_is_served_and_nothing_else_of_its_folder(client: httpx.Client) -> None:
    answer = client.get("/studio/plotly.min.js")
    assert answer.status_code == 200 and "javascript" in answer.headers["content-type"]
    assert answer.text.lstrip().startswith("/**\n* plotly.js v")
    again = client.get("/studio/plotly.min.js", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    for path in (
        "widgetbundle.js",
        "datasets/iris.csv.gz",
        "../__init__.py",
        "%2e%2e/graph_objs.py",
    ):
        assert client.get(f"/studio/{path}").status_code == 404


def test_who_tells_the_page(client: httpx.Client, kind: str) -> None:
    found = call(client, "who", token=TOKEN)
    assert found == {"owner": kind != "closed", "open": kind == "open",
                     "token_set": kind == "owned", "wrong": kind == "closed"}  # fmt: skip


def test_token_is_never_sent(client: httpx.Client, kind: str) -> None:
    for path in ("/", "/config"):
        assert TOKEN not in client.get(path).text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/state"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/reset"),
        ("POST", "/login"),
        ("PUT", "/gradio_api/component_server"),
        ("DELETE", "/"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file=app.py"),
        ("GET", "/gradio_api/proxy=https://example.com"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/info"),
        ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"),
        ("GET", "/openapi.json"),
        ("GET", "/assets/../gradio_api/info"),
        ("GET", "/docs"),
    ],
)
def test_routes_without_use_are_shut(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 404


def test_large_and_strange_bodies_are_refused(client: httpx.Client) -> None:
    def post(**request: Any) -> int:
        return client.post(FUNCTION, **request).status_code

    assert post(content=b"x" * 1_000_001, headers={"content-type": "application/json"}) == 413
    assert post(files={"file": b"x"}) == 415
    assert post(content=b"{", headers={"content-type": "application/json"}) == 400
    chunks = (b"[" * 100_000 for _ in range(30))
    assert post(content=chunks, headers={"content-type": "application/json"}) == 400
    assert client.get("/config").status_code == 200


def test_functions_that_are_none_are_not_called(client: httpx.Client) -> None:
    for name in ("close", "preprocess", "__init__", "desk", "nothing"):
        number = component(client, "merge-tab")
        body = {"data": {}, "component_id": number, "session_hash": "x", "fn_name": name}
        assert client.post(FUNCTION, json=body).status_code == 404


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"origin": "SELF"}, True),
        ({"host": "localhost:1234"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "127.0.0.1.evil.example:7860"}, False),
        ({"host": "[::1"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://127.0.0.1:1"}, False),
        ({"origin": "http://localhost:7860"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://127.0.0.1.evil.example"}, False),
    ],
)
def test_other_sites_cannot_pass_for_the_owner(
    client: httpx.Client, studio: Studio, kind: str, headers: dict[str, str], passes: bool
) -> None:
    own = f"http://127.0.0.1:{studio.settings.port}"
    sent = {key: value.replace("SELF", own) for key, value in headers.items()}
    status = client.get("/config", headers=sent).status_code
    # Elsewhere the token decides, which no other site has.
    assert (status == 200) is (passes or kind != "open")
