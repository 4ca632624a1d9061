"""`python -m studio serve`, as a process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from studio.serve.processes.machine import this_machine
from studio.serve.processes.proc_table import belonging
from tests.serve.engines import DEMO, QUESTION, greedy, text_of
from tests.test_architecture import ROOT


def command(data: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "studio", "serve", *arguments],
        cwd=ROOT,
        env=os.environ | {"STUDIO_DATA": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_serve_answers_one_prompt_and_ends(tmp_path: Path) -> None:
    run = command(
        tmp_path, str(DEMO / "story"), "--engine", "embedded", "--prompt", QUESTION,
        "--max-tokens", "12",
    )  # fmt: skip
    out, talk = run.communicate(timeout=100)
    assert run.returncode == 0, talk
    assert out == text_of(QUESTION, greedy("story", QUESTION, 12)) + "\n"
    assert "story: loading weights" in talk
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [".lock"]


def test_serve_tells_where_it_is_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    run = command(tmp_path, str(DEMO / "story"), "--engine", "embedded", "--json")
    assert run.stdout is not None
    found = json.loads(run.stdout.readline())
    assert found["event"] == "ready"
    log = tmp_path / "engines" / found["id"] / "log.txt"
    assert len(belonging(log)) == 2
    answer = httpx2.post(
        f"{found['url']}/completions",
        headers={"Authorization": f"Bearer {found['key']}"},
        json={"model": "model", "prompt": QUESTION, "max_tokens": 12, "temperature": 0},
    )
    expected = text_of(QUESTION, greedy("story", QUESTION, 12))
    assert answer.json()["choices"][0]["text"] == expected
    assert httpx2.get(f"{found['url']}/models").status_code == 401
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130 and belonging(log) == set()
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((str(DEMO / "nowhere"),), "there is no such folder"),
        ((str(DEMO / "story"), "--tp", "2"), "the embedded engine runs in one process"),
        ((str(DEMO / "story"), "--tp", "0"), "parallel sizes are whole numbers from 1"),
        ((str(DEMO / "story"), "--plan-only", "--tp", "0"), "tensor parallel size is 0"),
        ((str(DEMO / "story"), "--prompt", "x", "--preset", "hot"), 'there is no preset "hot"'),
    ],
)
def test_serve_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    run = command(tmp_path, *arguments, "--engine", "embedded")
    _, talk = run.communicate(timeout=60)
    assert run.returncode == 2
    assert message in talk and "Traceback" not in talk


@pytest.mark.skipif(this_machine().has_gpu, reason="GPUs can have a pipeline")
def test_serve_begins_no_pipeline_on_the_processor(tmp_path: Path) -> None:
    run = command(tmp_path, str(DEMO / "story"), "--engine", "vllm", "--pp", "2")
    _, talk = run.communicate(timeout=60)
    assert run.returncode == 2
    assert talk.startswith("error: story: no pipeline runs on the CPU")


def test_serve_plan_only_says_what_fits_and_starts_nothing(tmp_path: Path) -> None:
    models = [str(DEMO / "story"), str(DEMO / "roleplay")]
    run = command(tmp_path, *models, "--plan-only")
    out, talk = run.communicate(timeout=60)
    assert run.returncode == 0, talk
    assert "Plan: side by side." in out
    run = command(tmp_path, *models, "--plan-only", "--tp", "3")
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "(8) must be divisible by tensor parallel size (3)" in out
    assert list(tmp_path.iterdir()) == []


def test_serve_answers_from_several_models(tmp_path: Path) -> None:
    models = ("story", "roleplay")
    run = command(
        tmp_path, *(str(DEMO / model) for model in models), "--engine", "embedded", "--prompt",
        QUESTION, "--max-tokens", "12",
    )  # fmt: skip
    out, talk = run.communicate(timeout=100)
    assert run.returncode == 0, talk
    assert out.split("\n")[:2] == [text_of(QUESTION, greedy(m, QUESTION, 12)) for m in models]
