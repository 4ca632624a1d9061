"""A plan for people and for programs, through the command line."""

import json

import pytest

from studio.cli import main

XWIN, HERMES = "Xwin-LM/Xwin-LM-70B-V0.1", "NousResearch/Nous-Hermes-Llama2-70b"


def test_table_and_recommendation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", XWIN, HERMES, "--gpus", "8x80"]) == 0
    told = capsys.readouterr().out
    assert "What if: 8 × H100, 79.1 GiB" in told
    assert "→  4   1     32.1 GiB      491,040         119.9" in told
    assert "   3   1  Total number of attention heads (64) must be divisible" in told
    assert f"{HERMES}: 69B parameters, float16\n  as {XWIN}" in told
    assert f"Plan: side by side.\n  {XWIN} on GPU 0, 1, 2, 3\n" in told


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--gpus", "2x80", "--quantization", "fp8", "--prompts", "10", "--json"]
    assert main(["plan", XWIN, *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    (model,) = told["models"]
    assert model["quantisation"] == "fp8_per_tensor" and model["gpus"] == [0, 1]
    chosen = model["chosen"]
    assert (chosen["tp"], chosen["tokens"]) == (2, 241_760)
    parts = [chosen[part] for part in ("weights", "overhead", "kv", "reserve")]
    assert sum(parts) == told["memory"]
    assert [step["name"] for step in told["costs"]] == ["download", "load", "generate"]


def test_impossible_ends_with_2_and_gives_the_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", XWIN, "--gpus", "1x141"]) == 2
    told = capsys.readouterr().out
    assert "Plan: impossible.\n" in told and "instead: fp8_per_tensor on line" in told
    assert "On 2 machines:" in told and "--distributed-executor-backend ray" in told


def test_a_pipeline_is_shown_only_where_it_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", XWIN, "--gpus", "3x80", "--requests", "16"]) == 0
    assert "→  1   3     43.5 GiB" in capsys.readouterr().out


def test_the_demo_on_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "demo/models/base", "demo/models/story", "--gpus", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "both models fit into memory together" in told and "5.4 MiB of weights" in told


def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", XWIN, "--gpus", "many"]) == 2
    assert '"many" does not say which GPUs' in capsys.readouterr().err
