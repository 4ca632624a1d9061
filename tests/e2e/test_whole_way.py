"""The whole way once: tune, merge, serve, generate, rate, verdict; with vLLM, tensor parallel."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studio.arena.checks.constraints import check
from studio.arena.prompts.prompt import Prompt, load_prompts
from studio.arena.rating.sitting import Sitting
from studio.merge import dump_recipe, load_recipe
from studio.merge.recipe import anchors, with_anchors
from studio.serve.processes.proc_table import belonging
from tests.test_architecture import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TRIAL = """
name: merge-or-roleplay
project: demo
models:
  - {{label: merged, source: {merged}}}
  - {{label: roleplay, source: {source}}}
primary: [merged, roleplay]
prompts: [{prompts}]
categories: [instruction]
sealed: null
sampling: greedy
draws: 3
votes_per_prompt: 1
raters: 1
repeats: 0.1
identical: 0.1
"""


def studio(data: Path, *arguments: str) -> str:
    """Run a command as a person would; its standard output."""
    return run(data, *arguments)[0]


def run(data: Path, *arguments: str) -> tuple[str, str]:
    """The same, with what it says beside its data."""
    done = subprocess.run(
        [sys.executable, "-m", "studio", *arguments],
        cwd=ROOT, env={**os.environ, "STUDIO_DATA": str(data)}, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def tuned() -> str:
    """The demo recipe with more of `instruct` in its first stage, as one would drag it."""
    recipe = load_recipe((ROOT / "recipes/demo.yaml").read_text())
    values = list(anchors(recipe))
    values[:3] = [0.35, 0.4, 0.55]
    return dump_recipe(with_anchors(recipe, values))


def kept(prompt: Prompt, answer: str) -> bool:
    return all(result.passed for result in check(prompt.constraints, answer))


def rate(trial: Path, prompts: dict[str, Prompt]) -> int:
    """Rate every item as one who looks only whether the instruction was followed."""
    sitting, votes = Sitting(trial, "reader"), 0
    by_text = {prompt.messages[-1].content: prompt for prompt in prompts.values()}
    while item := sitting.next():
        prompt = by_text[item.messages[-1].content]
        good = kept(prompt, item.a), kept(prompt, item.b)
        verdict = {(True, False): "a", (False, True): "b", (True, True): "tie"}
        sitting.vote(item.item_id, verdict.get(good, "both_bad"))
        votes += 1
    return votes


def test_from_tuning_to_the_verdict(tmp_path: Path) -> None:
    data, recipe, merged = tmp_path / "data", tmp_path / "tuned.yaml", tmp_path / "merged"
    recipe.write_text(tuned())
    shares = json.loads(studio(data, "preview", str(recipe), "--json"))["overall"]
    before = json.loads(studio(data, "preview", "recipes/demo.yaml", "--json"))["overall"]
    assert shares[1] > before[1] + 0.02  # instruct
    studio(data, "merge", str(recipe), "--out", str(merged))
    studio(data, "verify", str(merged))

    prompt_file = ROOT / "prompts/demo.yaml"
    prompts = {p.id: p for p in load_prompts(prompt_file) if p.category == "instruction"}
    design = tmp_path / "TRIAL.yaml"
    source = ROOT / "demo/models/roleplay"
    design.write_text(TRIAL.format(merged=merged, source=source, prompts=prompt_file))
    out, said = run(data, "generate", str(design), "--engine", "vllm", "--tp", "2", "--json")
    found = json.loads(out.splitlines()[-1])
    assert said.count("an engine is started") == 1, "the second model takes the first one's place"
    trial = Path(found["path"])
    answers = [json.loads(line) for line in (trial / "answers.jsonl").read_text().splitlines()]
    assert {a["model"] for a in answers} == {"merged", "roleplay"}
    assert {a["identity"]["tensor_parallel_size"] for a in answers} == {"2"}

    assert rate(trial, prompts) >= len(prompts)
    outcome: dict[str, Any] = json.loads(studio(data, "results", str(trial), "--json"))
    followed = {
        model: [kept(prompts[a["prompt"]], a["text"]) for a in answers if a["model"] == model]
        for model in ("merged", "roleplay")
    }
    print(json.dumps({"followed": {m: sum(v) / len(v) for m, v in followed.items()}}))
    print("\n".join(outcome["verdict"]))
    assert sum(followed["merged"]) > 2 * sum(followed["roleplay"])
    assert "merged" in " ".join(outcome["verdict"])
    report = tmp_path / "report.html"
    studio(data, "results", str(trial), "--html", str(report), "--csv", str(tmp_path / "v.csv"))
    assert "merged" in report.read_text()
    assert not [p for log in data.glob("engines/*/log.txt") for p in belonging(log)]
