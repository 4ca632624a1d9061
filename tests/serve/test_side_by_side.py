"""Models in vLLM servers of their own at the same time: a source and what was merged from it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio.merge import Options, check, load_recipe
from studio.merge.run import merge
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
from studio.serve.sampling import Sampling
from tests.serve.engines import MODEL, greedy, ready, text_of
from tests.test_architecture import ROOT

THINGS = ("lantern", "ring", "key", "bell", "river", "forest")
GREEDY = Sampling(temperature=0.0, max_tokens=24)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_demo_model_and_the_merged_one_answer_as_themselves(
    fleet: Fleet, vllm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the recipe's models are in folders of the project
    merged = tmp_path / "merged"
    recipe = load_recipe((ROOT / "recipes" / "demo.yaml").read_text())
    merge(check(recipe, Options(), merged), merged, on_progress=lambda progress: None)
    name = ready(fleet, ModelSpec(model=str(merged), dtype="float32"))
    engines = [(fleet.engine(vllm), MODEL), (fleet.engine(name), str(merged))]
    questions = [f"Guest: Tell me about the {thing}.\nHost:" for thing in THINGS]
    with ThreadPoolExecutor(2 * len(THINGS)) as threads:
        jobs = [
            (threads.submit(engine.complete, question, GREEDY), model, question)
            for question in questions
            for engine, model in engines
        ]
        said = {(model, question): job.result().text for job, model, question in jobs}
    for (model, question), text in said.items():
        assert text == text_of(question, greedy(model, question, 24))
    assert all(said[MODEL, each] != said[str(merged), each] for each in questions)
    assert [fleet.state(each).phase for each in (vllm, name)] == ["ready", "ready"]
    fleet.stop(name)
    assert fleet.wait(name, ("stopped", "failed"), 60).phase == "stopped"
