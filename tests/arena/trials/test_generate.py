"""Fixing a trial and making its answers: what is fixed stays, what was made is kept."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from studio.arena.trials import answers as answer_file
from studio.arena.trials.answers import Generated, read_answers
from studio.arena.trials.design import Model
from studio.arena.trials.generate import Ask, Progress, Speaker, generate, sampling_for, seed_of
from studio.arena.trials.trial import fix, open_trial
from studio.errors import StudioError
from tests.arena.sample_trials import RIVAL, Parrot, design, known, made, parrot, prompts


def test_answers_carry_where_they_come_from(tmp_path: Path) -> None:
    trial = made(tmp_path, 4)
    found = trial.answers()
    assert list(found) == trial.needed and len(found) == 2 * 4 * 3
    for key, answer in found.items():
        assert answer.text.startswith(f"{key.model} says {key.prompt}")
        assert answer.identity == known(key.model)
        assert (answer.prompt_format, answer.finish_reason) == ("chatml", "stop")
        assert answer.sampling == {"temperature": 1.0, "max_tokens": 64, "stop": []}
        assert answer.seed == seed_of(trial.design, key) < 2**31
    seeds = {(key.prompt, key.draw): answer.seed for key, answer in found.items()}
    assert len(set(seeds.values())) == 12, "one seed for all models, another for each draw"


def test_the_smaller_limit_counts() -> None:
    (prompt,) = prompts(1)
    assert prompt.max_tokens == 512
    assert sampling_for(design(sampling={"max_tokens": 64}), prompt)["max_tokens"] == 64
    assert sampling_for(design(sampling={"max_tokens": 4096}), prompt)["max_tokens"] == 512
    assert sampling_for(design(sampling={}), prompt)["max_tokens"] == 512


def test_one_model_at_a_time_and_only_what_is_missing(tmp_path: Path) -> None:
    opened: list[str] = []
    shown: list[Progress] = []

    @contextmanager
    def breaking(model: Model) -> Iterator[Speaker]:
        opened.append(f"+{model.label}")
        speaker = Parrot(model.label)
        plain, left = speaker.answer, iter(range(20))

        def answer(ask: Ask) -> Generated:
            if model.label == RIVAL and next(left) == 5:
                raise StudioError("the engine is gone")
            return plain(ask)

        speaker.answer = answer  # type: ignore[method-assign]
        yield speaker
        opened.append(f"-{model.label}")

    trial = fix(tmp_path, design(), prompts(4))
    with pytest.raises(StudioError, match="the engine is gone"):
        generate(trial, breaking)
    assert opened == ["+merged", "-merged", "+rival"]
    before = (tmp_path / answer_file.FILE).read_bytes()
    assert len(trial.answers()) == 12 + 5
    generate(trial, parrot, shown.append)
    assert (tmp_path / answer_file.FILE).read_bytes().startswith(before)
    assert [progress.done for progress in shown] == list(range(18, 25))
    assert {(p.model, p.total, p.resumed) for p in shown} == {(RIVAL, 24, 17)}
    assert shown[-1].left == 0 and shown[-1].tokens == 7 * len(RIVAL)
    again: list[Progress] = []
    generate(trial, breaking, again.append)
    assert not again


def test_what_is_left_counts_models_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a model takes 60 s, an answer 2 s: what is left is told to the second."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    shown: list[Progress] = []

    @contextmanager
    def slow(model: Model) -> Iterator[Speaker]:
        speaker = Parrot(model.label)
        plain = speaker.answer

        def answer(ask: Ask) -> Generated:
            clock[0] += 2
            return plain(ask)

        speaker.answer = answer  # type: ignore[method-assign]
        clock[0] += 60
        yield speaker

    trial = fix(tmp_path, design(), prompts(4))
    models = list(reversed(trial.design.models))
    generate(trial, slow, shown.append, models)
    assert [p.model for p in shown] == [RIVAL] * 12 + ["merged"] * 12
    assert [(p.seconds, p.left) for p in (shown[0], shown[11], shown[12], shown[23])] == [
        (62, 23 * 2 + 60), (84, 12 * 2 + 60), (146, 11 * 2), (168, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"identity": {"fingerprint": "other", "quantisation": "fp8"}}, "fingerprint was print-"),
        ({"identity": {"fingerprint": "print-merged"}}, "quantisation was fp8 .* is none now"),
        ({"prompt_format": "alpaca"}, "prompt format was chatml .* and is alpaca now"),
        ({"identity": {"quantisation": "fp8"}}, None),
    ],
)
def test_answers_of_a_model_that_was_changed_are_not_mixed(
    tmp_path: Path, change: dict[str, Any], told: str | None
) -> None:
    trial = fix(tmp_path, design(), prompts(4))

    @contextmanager
    def changed(model: Model) -> Iterator[Speaker]:
        speaker = Parrot(model.label)
        for name, value in change.items():
            setattr(speaker, name, value)
        yield speaker

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(trial, parrot, stop)
    if told is None:  # a server elsewhere does not tell whose weights it has
        generate(trial, changed)
        assert len(trial.answers()) == 24
        return
    with pytest.raises(StudioError, match=f"merged: its {told}"):
        generate(trial, changed)
    assert len(trial.answers()) == 1


def test_an_aborted_answer_is_not_taken(tmp_path: Path) -> None:
    @contextmanager
    def aborting(model: Model) -> Iterator[Speaker]:
        speaker = Parrot(model.label)
        speaker.answer = lambda *_: Generated("half", "abort", 1, 1, 0.1)  # type: ignore[method-assign]
        yield speaker

    trial = fix(tmp_path, design(), prompts(4))
    with pytest.raises(StudioError, match='merged, prompt p0: the engine ended with "abort"'):
        generate(trial, aborting)
    assert trial.answers() == {}


GENERATE = """
import sys, time
from pathlib import Path
from studio.arena.trials.generate import generate
from studio.arena.trials.trial import open_trial
from tests.arena.sample_trials import parrot
def show(progress):
    print(progress.done, flush=True)
generate(open_trial(Path(sys.argv[1])), parrot, show)
"""


def test_a_killed_run_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    trial = fix(tmp_path, design(), prompts(40))
    told = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", GENERATE, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(15):
            told = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout.read().split())])
        process.wait()
        assert len(trial.answers()) >= told
    generate(trial, parrot)
    lines = (tmp_path / answer_file.FILE).read_text().splitlines()
    keys = [tuple(json.loads(line)[name] for name in ("model", "prompt", "draw")) for line in lines]
    assert len(keys) == len(set(keys)) == 240


def test_another_design_or_prompts_under_the_same_name_are_refused(tmp_path: Path) -> None:
    first = fix(tmp_path, design(), prompts(4))
    assert fix(tmp_path, design(), prompts(4)) == first
    with pytest.raises(StudioError, match="was fixed on .* with another design"):
        fix(tmp_path, design(draws=4), prompts(4))
    with pytest.raises(StudioError, match="was fixed on .* with another prompts"):
        fix(tmp_path, design(), prompts(5))
    with pytest.raises(StudioError, match="has no prompts"):
        fix(tmp_path / "empty", design(), [])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("design.json", '"draws": 3', '"draws": 4'),
        ("prompts.jsonl", "task number 1", "task number 7"),
        ("key.json", '"secret": "', '"secret": "00'),
    ],
)
def test_what_was_fixed_cannot_be_changed_unseen(
    tmp_path: Path, file: str, old: str, new: str
) -> None:
    fix(tmp_path, design(), prompts(4))
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(StudioError, match=f"{file}: was changed after the trial was fixed"):
        open_trial(tmp_path)


def test_answers_of_another_version_are_refused(tmp_path: Path) -> None:
    made(tmp_path, 4)
    path = tmp_path / answer_file.FILE
    path.write_text(path.read_text().replace('"draw"', '"drawn"', 1))
    with pytest.raises(StudioError, match="line 1: missing or unknown: draw, drawn"):
        read_answers(path)
    path.write_text("{not json}\n")
    with pytest.raises(StudioError, match="line 1: is not JSON"):
        read_answers(path)
