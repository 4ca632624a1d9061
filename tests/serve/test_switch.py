"""One engine, several models: real switches, and one that fails half-way."""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.errors import StudioError
from studio.serve.checksum import compare, sums_of_files
from studio.serve.endpoint import Address, Endpoint
from studio.serve.engine import EngineGone
from studio.serve.gate import GENERATING, MODEL_HEADER
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.process import LOG
from studio.serve.processes.state import EngineState
from studio.serve.sampling import Sampling
from studio.weights import Checkpoint
from tests.checkpoints import write_checkpoint
from tests.serve.engines import DEMO, MODEL, QUESTION, greedy, text_of, titles

pytestmark = pytest.mark.timeout(300)

GREEDY = Sampling(temperature=0.0, max_tokens=24)
SETTLED = ("ready", "failed", "stopped")


@pytest.fixture(params=["embedded", "vllm"])
def name(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[str]:
    """The id of an engine of each kind, with its first model put back afterwards."""
    name: str = request.getfixturevalue(request.param)
    yield name
    if fleet.state(name).spec.name != MODEL:
        assert switched(fleet, name, DEMO / MODEL).spec.name == MODEL


def switched(fleet: Fleet, name: str, model: Path) -> EngineState:
    fleet.switch(name, str(model))
    assert fleet.state(name).phase in ("switching", *SETTLED)
    state = fleet.wait(name, SETTLED, 120)
    assert state.phase == "ready", (state.problem, fleet.log(name, 30))
    return state


def answer(fleet: Fleet, name: str) -> str:
    with closing(fleet.engine(name)) as engine:
        return engine.complete(QUESTION, GREEDY).text


def expected(model: str) -> str:
    return text_of(QUESTION, greedy(model, QUESTION, 24))


def digest_of_files(model: str, dtype: str | None) -> str:
    """The digest of a model's weights, from its files alone."""
    checkpoint = Checkpoint.open(DEMO / model, model)
    assert dtype is not None
    dtypes = dict.fromkeys(checkpoint.tensors, getattr(torch, dtype))
    files = sums_of_files(checkpoint, dtypes, "cpu", words=True)
    return compare([files], files, {}).digest


def test_each_model_answers_as_itself_and_comes_back_bit_by_bit(fleet: Fleet, name: str) -> None:
    before = fleet.state(name)
    answers, digests, wholes = {}, {}, {}
    for model in ("story", "base", "instruct", MODEL):
        state = switched(fleet, name, DEMO / model)
        assert state.problem == "" and state.spec.name == model
        assert state.identity is not None and state.identity.label == model
        with closing(fleet.engine(name)) as engine:
            assert engine.identity == state.identity
        answers[model], digests[model] = answer(fleet, name), state.digests
        wholes[model] = state.digest
        assert state.switch is not None and state.switch["bytes_read"] > 5_000_000
    assert answers == {model: expected(model) for model in answers}
    assert digests[MODEL] == before.digests
    assert len(set(digests.values())) == len(set(wholes.values())) == 4
    assert wholes[MODEL] == before.digest
    assert wholes == {model: digest_of_files(model, state.identity.dtype) for model in wholes}
    assert fleet.state(name).identity == before.identity


def test_every_parameter_is_compared_with_the_files(fleet: Fleet, vllm: str, embedded: str) -> None:
    assert fleet.state(vllm).verified == "27 of 27 parameters"
    assert fleet.state(embedded).verified == "39 of 39 parameters"
    assert len(set(fleet.state(vllm).digests)) == 2


def test_an_engine_for_the_old_model_answers_no_more(fleet: Fleet, name: str) -> None:
    with closing(fleet.engine(name)) as old:
        switched(fleet, name, DEMO / "story")
        with pytest.raises(EngineGone, match="another model is in the engine now"):
            old.complete(QUESTION, GREEDY)
        with pytest.raises(EngineGone, match="another model"):
            next(old.stream(QUESTION, GREEDY))


def test_an_answer_under_way_is_aborted_and_never_mixed(fleet: Fleet, name: str) -> None:
    sampling = Sampling(temperature=2.0, max_tokens=250)
    with closing(fleet.engine(name)) as engine:
        every = (replace(sampling, seed=seed) for seed in range(100))
        long = next(
            each for each in every if engine.complete([5] * 4, each).completion_tokens > 150
        )
        whole = engine.complete([5] * 4, long).text
    for _ in range(5):  # on a busy machine the answer may be whole before the switch begins
        with closing(fleet.engine(name)) as engine:
            stream = engine.stream([5] * 4, long)
            pieces = [next(stream)]
            fleet.switch(name, str(DEMO / "story"))
            pieces += stream
        assert fleet.wait(name, SETTLED, 60).spec.name == "story"
        assert whole.startswith("".join(piece.text for piece in pieces))
        if pieces[-1].finish_reason == "abort":
            break
        fleet.switch(name, str(DEMO / MODEL))
        assert fleet.wait(name, SETTLED, 60).spec.name == MODEL
    assert pieces[-1].finish_reason == "abort" and pieces[-1].tokens < 250


@pytest.fixture
def other_shapes(tmp_path: Path) -> Path:
    """A small model that is no relation."""
    return write_checkpoint(tmp_path / "other")


def test_no_relation_is_refused_and_the_model_stays(
    fleet: Fleet, name: str, other_shapes: Path
) -> None:
    before = fleet.state(name)
    state = switched(fleet, name, other_shapes)
    assert f"{MODEL} stays: other: config.json has" in state.problem
    assert (state.identity, state.digests) == (before.identity, before.digests)
    assert answer(fleet, name) == expected(MODEL)


def test_a_missing_folder_is_refused(fleet: Fleet, name: str, tmp_path: Path) -> None:
    state = switched(fleet, name, tmp_path / "nowhere")
    assert "there is no such folder" in state.problem
    assert answer(fleet, name) == expected(MODEL)


def half_sent_request(state: EngineState) -> socket.socket:
    """A request that is past the door, and the rest of whose body does not come."""
    where = urlsplit(state.url)
    assert where.port is not None and state.identity is not None
    door = socket.create_connection(("127.0.0.1", where.port))
    door.sendall(
        f"POST {GENERATING} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {state.key}\r\n"
        f"{MODEL_HEADER}: {state.identity.fingerprint}\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert b"100 Continue" in door.recv(100)
    door.sendall(b"{")
    return door


def test_a_half_sent_request_holds_up_no_switch(fleet: Fleet, name: str) -> None:
    with half_sent_request(fleet.state(name)) as door:
        state = switched(fleet, name, DEMO / "story")
        assert (state.problem, state.spec.name) == ("", "story")
        door.sendall(b" " * 998 + b"}")
        assert b"409 Conflict" in door.recv(1000)


@contextmanager
def held_still(log: Path) -> Iterator[None]:
    """The workers of a vLLM server do nothing for a while."""
    workers = [pid for title, pid in titles(log).items() if title.startswith("Worker")]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


def until_shut(state: EngineState) -> None:
    """Wait until the engine answers nothing: the model to come is checked, and not yet read."""
    with Address(state.url, state.key).client() as client:
        while client.post(GENERATING, json={}).status_code != 409:
            time.sleep(0.05)
        assert client.get("/v1/studio/resident").json()["model"] is None


def spoil(model: Path) -> None:
    """Give one projection of the third layer another shape: loading breaks half-way."""
    file, name = model / "model.safetensors", "model.layers.2.mlp.down_proj.weight"
    tensors = load_file(file)
    tensors[name] = tensors[name][:, :100].contiguous()
    save_file(tensors, file)


def test_a_load_that_breaks_half_way_puts_the_model_back(
    fleet: Fleet, vllm: str, tmp_path: Path
) -> None:
    """The files change between the check and the load."""
    before = fleet.state(vllm)
    other = tmp_path / "story"
    shutil.copytree(DEMO / "story", other)
    with held_still(fleet.folder / vllm / LOG):
        fleet.switch(vllm, str(other))
        until_shut(before)
        assert fleet.state(vllm).phase == "switching"
        with pytest.raises(StudioError, match="switching"):
            fleet.engine(vllm)
        spoil(other)
    state = fleet.wait(vllm, SETTLED, 120)
    assert state.phase == "ready"
    assert f"{MODEL} stays" in state.problem and "rank 0" in state.problem
    assert state.identity == before.identity
    assert answer(fleet, vllm) == expected(MODEL)
    assert switched(fleet, vllm, DEMO / "story").problem == ""
    assert switched(fleet, vllm, DEMO / MODEL).digests == before.digests


def test_requests_during_a_switch_are_turned_away_not_mixed(fleet: Fleet, name: str) -> None:
    """Many askers while models change: each answer is the asked model's own, or none."""
    wrong, right = [], []
    is_over = threading.Event()

    def ask(engine: Endpoint) -> None:
        while not is_over.is_set():
            try:
                done = engine.complete(QUESTION, replace(GREEDY, max_tokens=24))
            except EngineGone:
                time.sleep(0.02)
                continue
            ours = done.text == expected(MODEL) or done.finish_reason == "abort"
            (right if ours else wrong).append(done)

    with closing(fleet.engine(name)) as engine:
        threads = [threading.Thread(target=ask, args=(engine,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        for model in ("story", MODEL, "base", MODEL):
            switched(fleet, name, DEMO / model)
            time.sleep(0.2)
        is_over.set()
        for thread in threads:
            thread.join()
    assert not wrong and right
