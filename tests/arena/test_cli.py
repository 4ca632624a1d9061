"""The commands on trials, as a user runs them."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from studio.arena.rating.pack import open_pack
from studio.arena.rating.ratings import FILE
from studio.arena.rating.sitting import Sitting
from studio.cli import main
from studio.cli.arena import load_trial
from studio.serve.kept import Presets
from tests.arena.sample_trials import MERGED, made, prefers, rate_all

YAML = """\
name: first
project: demo
models:
  - {label: merged, source: models/merged}
  - {label: rival, source: models/rival}
primary: [merged, rival]
prompts: [prompts.jsonl]
sampling: creative
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.fixture
def design_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    prompts: list[dict[str, Any]] = [
        {"id": f"p{n}", "category": "story", "prompt": f"{word} is the word for a tale"}
        for n, word in enumerate("sea moon lamp door bread rope glass stone wolf hare".split())
    ]
    Path("prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    Path("TRIAL.yaml").write_text(YAML)
    return Path("TRIAL.yaml")


def test_design_tells_the_power_and_fixes_nothing(
    capsys: pytest.CaptureFixture[str], design_file: Path
) -> None:
    code, out, _ = run(capsys, "design", design_file)
    assert code == 0 and "10 votes on 10 prompts at 30 % ties find a true 65 % preference" in out
    assert "A claim will be about this one rater, on prompts like these" in out
    assert "60 answers to make. The rater sees 12 pairs: 10 that count and" in out
    assert "merged against rival (primary)" in out
    code, out, _ = run(capsys, "design", design_file, "--json")
    assert json.loads(out)["answers"] == 60 and json.loads(out)["needed"] == 209
    assert sorted(path.name for path in Path().iterdir()) == ["TRIAL.yaml", "prompts.jsonl"]


def test_a_design_may_name_a_preset_of_ones_own(
    capsys: pytest.CaptureFixture[str], design_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_DATA", "data")
    design_file.write_text(YAML.replace("sampling: creative", "sampling: mine"))
    code, _, err = run(capsys, "design", design_file)
    assert code == 2 and 'there is no preset "mine"' in err
    Presets(Path("data/serve")).save("mine", {"temperature": 0.9})
    assert load_trial(design_file)[0].sampling["temperature"] == 0.9


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("sampling: creative", "sampling: {temperature: 9}", "temperature is 9"),
        ("sampling: creative", "sampling: {heat: 1}", "'heat' is not a sampling parameter"),
        ("prompts.jsonl", "other.jsonl", "other.jsonl"),
        ("project: demo", "projekt: demo", "line 2: projekt: unknown key"),
    ],
)
def test_mistakes_in_a_design_end_with_2(
    capsys: pytest.CaptureFixture[str], design_file: Path, old: str, new: str, told: str
) -> None:
    design_file.write_text(YAML.replace(old, new))
    code, out, err = run(capsys, "design", design_file)
    assert (code, out) == (2, "") and told in err


def test_from_a_pack_to_a_verdict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made(tmp_path / "home", 40)
    pack, report, votes = (tmp_path / name for name in ("a.zip", "report.html", "votes.csv"))
    assert run(capsys, "pack", tmp_path / "home", "--out", pack)[:2] == (0, f"{pack}\n")
    folder = open_pack(pack, tmp_path / "elsewhere")
    rate_all(Sitting(folder, "Ann"), prefers(MERGED, 0.95, random.Random(2)))
    code, out, _ = run(capsys, "collect", tmp_path / "home", folder / FILE)
    assert (code, out) == (0, "44 votes taken over, 0 known, 0 refused\n")
    code, out, _ = run(capsys, "results", tmp_path / "home", "--html", report, "--csv", votes)
    assert code == 0 and out.startswith("merged is better than rival for this rater")
    assert report.read_text().startswith("<!doctype html>")
    assert len(list(csv.DictReader(votes.open()))) == 40
    code, out, _ = run(capsys, "results", tmp_path / "home" / FILE, "--json")
    assert json.loads(out)["primary"]["claim"] == "first" and json.loads(out)["verdict"]
    code, out, _ = run(capsys, "results", tmp_path / "home", "--card")
    assert out.startswith("**Blind comparison.** merged is better")
    (entry,) = map(json.loads, (tmp_path / "ledger.jsonl").read_text().splitlines())
    assert (entry["why"], len(entry["prompts"]), entry["alpha"]) == ("results read", 40, 0.0)


def test_amend_asks_for_a_reason_and_keeps_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made(tmp_path, 6)
    assert run(capsys, "amend", tmp_path, "reveal: each", "--why", "asked for")[0] == 0
    code, _, err = run(capsys, "amend", tmp_path, "alpha: 0.1", "--why", "asked for")
    assert code == 2 and "alpha: cannot be amended" in err
    code, _, err = run(capsys, "amend", tmp_path, "reveal", "--why", "x")
    assert code == 2 and "changes nothing" in err
    assert json.loads(run(capsys, "results", tmp_path, "--json")[1])["amendments"][0]["votes"] == 0


def test_results_of_no_trial_end_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "results", tmp_path)
    assert (code, out) == (2, "") and "is not a trial: there is no design.json" in err
