"""Real engines over the demo models, each started once for all the tests that do it no harm."""

from collections.abc import Iterator

import pytest

from studio.serve.endpoint import Endpoint
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.state import EngineState
from tests.serve.engines import DEMO, MODEL, ready


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that ends everything when the tests are over."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    yield fleet
    fleet.close()


@pytest.fixture(scope="session")
def embedded(fleet: Fleet) -> str:
    """The id of an embedded engine with the model `roleplay`."""
    return ready(fleet, ModelSpec(model=str(DEMO / MODEL), engine="embedded", open_port=True))


@pytest.fixture(scope="session")
def vllm(fleet: Fleet) -> str:
    """The id of a vLLM server with the model `roleplay`, tensor parallel on two cores; in float32
    on every processor, since what it says is compared token by token.
    """
    return ready(
        fleet,
        ModelSpec(model=str(DEMO / MODEL), tensor_parallel_size=2, dtype="float32", open_port=True),
    )


@pytest.fixture(scope="session")
def endpoint(fleet: Fleet, vllm: str) -> str:
    """The id of an endpoint: the same vLLM server, seen as one that runs elsewhere."""
    state = fleet.state(vllm)
    return ready(fleet, ModelSpec(model="", engine="endpoint", url=state.url, key=state.key))


@pytest.fixture(scope="session", params=["embedded", "vllm", "endpoint"])
def name(request: pytest.FixtureRequest) -> str:
    """The id of each kind of engine in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, str)
    return found


@pytest.fixture
def engine(fleet: Fleet, name: str) -> Iterator[Endpoint]:
    """Each kind of engine in turn, with the model `roleplay` in it."""
    engine = fleet.engine(name)
    yield engine
    engine.close()


@pytest.fixture
def state(fleet: Fleet, name: str) -> EngineState:
    """The state of that engine."""
    return fleet.state(name)
