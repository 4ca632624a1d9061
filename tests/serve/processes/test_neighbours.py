"""Two processes of the studio with one folder of engines: neither gets in the other's way."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.engine import EngineGone
from studio.serve.planning.gpus import imagine
from studio.serve.processes import fleet as fleets
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.model_files import identity_of, model_files
from studio.serve.processes.neighbours import Neighbour, neighbours
from studio.serve.processes.process import EngineProcess, noted
from studio.serve.processes.spec import ModelSpec
from studio.serve.processes.vllm_command import Machine, Place
from studio.serve.sampling import Sampling
from tests.serve.engines import DEMO, QUESTION, greedy, ready, text_of
from tests.test_architecture import ROOT

GREEDY = Sampling(temperature=0.0, max_tokens=12)


def embedded(model: str = "story", **values: Any) -> ModelSpec:
    return ModelSpec(**{"model": str(DEMO / model), "engine": "embedded"} | values)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Fleet, Fleet]]:
    """The Serve tab's fleet and a command's, on a machine that says it has GPUs."""
    machine = Machine(has_gpu=True, cores=2)
    serve = Fleet(tmp_path, machine)
    command = Fleet(tmp_path, machine, adopts=False)
    yield serve, command
    command.close()
    serve.close()


def says(engine: Any, model: str) -> bool:
    return bool(
        engine.complete(QUESTION, GREEDY).text == text_of(QUESTION, greedy(model, QUESTION, 12))
    )


def test_an_engine_is_lent_for_the_model_that_is_in_it(tmp_path: Path) -> None:
    serve, command = Fleet(tmp_path), Fleet(tmp_path, adopts=False)
    try:
        name = ready(serve, embedded())
        lent = command.borrow(embedded(label="mine"))
        assert lent is not None and says(lent.engine, "story")
        assert (lent.engine.identity.label, lent.room, lent.folder) == ("mine", 512, DEMO / "story")
        with closing(serve.engine(name)) as own:
            assert lent.engine.identity == replace(own.identity, label="mine")
        assert command.borrow(embedded("roleplay")) is None
        serve.switch(name, str(DEMO / "roleplay"))
        assert serve.wait(name, ("ready", "failed"), 60).spec.name == "roleplay"
        with pytest.raises(EngineGone, match="another model is in the engine"):
            lent.engine.complete(QUESTION, GREEDY)
        assert command.borrow(embedded()) is None
        again = command.borrow(embedded("roleplay"))
        assert again is not None and says(again.engine, "roleplay")
        command.close()
        with closing(serve.engine(name)) as own:
            assert says(own, "roleplay")
        for engine in (lent.engine, again.engine):
            engine.close()
        serve.stop(name)
        serve.wait(name, ("stopped",), 30)
        assert command.borrow(embedded("roleplay")) is None and neighbours(command.folder, ()) == []
    finally:
        command.close()
        serve.close()


@pytest.mark.parametrize(
    ("theirs", "mine", "fits"),
    [
        ({}, {}, True),
        ({"dtype": "float16"}, {}, False),
        ({"engine": "vllm"}, {}, False),
        ({"engine": "vllm", "tensor_parallel_size": 2}, {"engine": "vllm"}, False),
        ({"engine": "vllm", "quantisation": "fp8_per_tensor"}, {"engine": "vllm"}, False),
        ({"max_model_len": 256}, {}, False),
        ({"max_model_len": 256}, {"max_model_len": 256}, True),
        ({}, {"max_model_len": 256}, True),
        ({"max_model_len": 512}, {}, True),
    ],
)
def test_an_engine_is_lent_only_if_it_holds_the_model_alike(
    tmp_path: Path, theirs: dict[str, Any], mine: dict[str, Any], fits: bool
) -> None:
    files = model_files(str(DEMO / "story"))
    place = Place(tmp_path, tmp_path, files.path, files.fingerprint, "key")
    held, spec = embedded(**theirs), embedded(**mine)
    dtype = theirs.get("dtype", "float32")
    neighbour = Neighbour("n", held, 1, EngineProcess(place, 1, 1), dtype, is_ready=True)
    wanted = identity_of(replace(spec, dtype="float32", label="story"), files)
    assert neighbour.holds(spec, wanted, files) is fits
    assert not replace(neighbour, is_ready=False).holds(spec, wanted, files)
    assert not replace(neighbour, process=None).holds(spec, wanted, files)


def test_no_gpu_is_given_to_two_processes(
    pair: tuple[Fleet, Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, command = pair
    monkeypatch.setattr(fleets, "found_here", lambda: imagine("3x80"))
    first = serve.start(embedded(gpus=(0,)))
    with pytest.raises(
        StudioError, match=r"GPU 0 is in use by story \(an engine of process \d+\);"
    ):
        command.start(embedded("roleplay", gpus=(0,)))
    with pytest.raises(StudioError, match=r"the GPUs are in use by story \(an engine") as error:
        command.start(embedded("roleplay"))
    assert error.value.data == {"in_the_way": [first]}
    assert command.placed(embedded("roleplay")).gpus == (1,)
    two = ModelSpec(model=str(DEMO / "base"), tensor_parallel_size=2)
    assert command.placed(two).gpus == (1, 2)
    command.start(command.placed(embedded("roleplay")))
    with pytest.raises(StudioError, match=r"GPU 1 is in use by roleplay \(an engine of process"):
        serve.start(embedded("base", gpus=(1,)))
    with pytest.raises(StudioError) as error:
        command.placed(two)
    assert str(error.value) == (
        "base: 2 GPUs needed, 1 of 3 free; roleplay and story (an engine of process "
        f"{os.getpid()}) must be stopped first, or give it fewer"
    )


def test_a_restart_does_not_take_gpus_that_went_to_another(pair: tuple[Fleet, Fleet]) -> None:
    serve, command = pair
    name = serve.start(embedded(gpus=(0,)))
    serve.stop(name)
    serve.wait(name, ("stopped",), 30)
    command.start(embedded("roleplay", gpus=(0,)))
    serve.restart(name)
    assert "GPU 0 is in use by roleplay" in serve.wait(name, ("failed",), 30).problem


def test_what_failed_before_it_started_claims_nothing(pair: tuple[Fleet, Fleet]) -> None:
    serve, command = pair
    name = serve.start(embedded("nowhere"))
    assert serve.wait(name, ("failed",), 30).phase == "failed"
    assert neighbours(command.folder, ()) == [] and not (serve.folder / name).exists()


CLAIM = """
import sys
from pathlib import Path
from studio.serve.processes.process import claim
from studio.serve.processes.spec import ModelSpec
claim(Path(sys.argv[1]), ModelSpec(model="m").as_data())
print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_claim_holds_while_its_process_lives(tmp_path: Path) -> None:
    folder = tmp_path / "m-1"
    owner = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdout is not None and owner.stdout.readline() == "claimed\n"
    assert [(each.spec.name, each.owner) for each in neighbours(tmp_path, ())] == [("m", owner.pid)]
    assert Fleet(tmp_path).found == (f"m-1: left alone, it belongs to process {owner.pid}",)
    owner.communicate()
    assert neighbours(tmp_path, ()) == [] and noted(folder) is not None
    fleet = Fleet(tmp_path)
    assert not folder.exists() and fleet.found == ("m-1: cleaned, 0 processes ended",)
