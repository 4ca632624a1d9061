"""TRIAL.yaml and the design it stands for."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from studio.arena.trials.design import (
    Compare,
    Design,
    Exclusions,
    Format,
    Model,
    Reveal,
    with_formats,
)
from studio.arena.trials.design_yaml import design_from_data, design_text, load_design
from studio.errors import StudioError
from tests.arena.sample_trials import design

ROOT = Path(__file__).parents[3]
PRESETS = {"creative": {"temperature": 1.0, "min_p": 0.08}}
YAML = """\
name: gradient-3
project: creative
models:
  - {label: merged, source: merges/gradient-3}
  - label: xwin
    source: Xwin-LM/Xwin-LM-70B-V0.1
    prompt_format: vicuna
  - {label: hermes, source: NousResearch/Nous-Hermes-Llama2-70b, prompt_format: alpaca}
primary: [merged, xwin]
compare: merged
prompts: [prompts/creative.yaml]
sampling: creative
votes_per_prompt: 2
exclusions: {recognised: false, faster_than: 1.5}
reveal: each
"""


def test_shipped_trial_asks_about_the_demo() -> None:
    text = (ROOT / "demo/trial.yaml").read_text()
    found = load_design(text, "trial.yaml", {"careful": {"temperature": 0.7}})
    first, second = found.models
    assert (first.source, found.primary) == ("merged", ("merged", "roleplay"))
    assert (ROOT / second.source).is_dir() and (ROOT / found.prompts[0]).is_file()


def test_design_is_read_as_written() -> None:
    found = load_design(YAML, "TRIAL.yaml", PRESETS)
    assert found == design(
        name="gradient-3",
        project="creative",
        models=(
            Model("merged", "merges/gradient-3"),
            Model("xwin", "Xwin-LM/Xwin-LM-70B-V0.1", "vicuna"),
            Model("hermes", "NousResearch/Nous-Hermes-Llama2-70b", "alpaca"),
        ),
        primary=("merged", "xwin"),
        compare=Compare.MERGED,
        prompts=("prompts/creative.yaml",),
        sampling={"preset": "creative", "temperature": 1.0, "min_p": 0.08},
        votes_per_prompt=2,
        exclusions=Exclusions(recognised=False, faster_than=1.5),
        reveal=Reveal.EACH,
    )
    assert load_design(yaml.safe_dump(found.as_data()), "again", {}) == found
    assert design_from_data(found.as_data()).hash == found.hash


def test_design_comes_back_from_its_yaml() -> None:
    format_ = Format("{{ messages }}", ("</s>",))
    made = design(
        models=(Model("x", "a", format_), Model("y", "b")), primary=("x", "y"), scores=("style",),
        sealed=True, sampling={"preset": "careful", "stop": ["»"]},
    )  # fmt: skip
    assert load_design(design_text(made), "TRIAL.yaml", {}) == made


def test_comparisons_follow_the_choice() -> None:
    three = {
        "models": tuple(Model(label, label) for label in ("m", "a", "b")),
        "primary": ("m", "b"),
    }
    assert design(**three).comparisons == (("m", "b"),)
    assert [model.label for model in design(**three).used_models] == ["m", "b"]
    assert design(**three, compare=Compare.MERGED).comparisons == (("m", "b"), ("m", "a"))
    assert design(**three, compare=Compare.ALL).comparisons == (("m", "b"), ("m", "a"), ("a", "b"))


def test_the_hash_changes_with_every_field() -> None:
    plain = design()
    changes = {
        "name": "other", "project": "other", "models": (*plain.models, Model("third", "x")),
        "primary": ("rival", "merged"), "prompts": ("other.yaml",), "compare": Compare.ALL,
        "categories": ("story",), "sealed": True, "sensitive": True, "sampling": {}, "seed": 2,
        "draws": 4, "votes_per_prompt": 2, "raters": 2, "overlap": 0.5, "repeats": 0.1,
        "identical": 0.1, "alpha": 0.01, "expect": 0.6, "expect_ties": 0.2, "stop_early": False,
        "reveal": Reveal.EACH, "scores": ("style",), "exclusions": Exclusions(masked=True),
        "seen_prompts": True,
    }  # fmt: skip
    assert changes.keys() == {field.name for field in fields(Design)}
    hashes = {replace(plain, **{name: value}).hash for name, value in changes.items()}
    assert len(hashes | {plain.hash}) == len(changes) + 1


def test_an_edited_format_is_written_out_and_hashed() -> None:
    def written(source: str, name: str | None) -> tuple[str, tuple[str, ...]] | None:
        return (f"template of {source}", ("END",)) if name is None else None

    plain = load_design(YAML, "TRIAL.yaml", PRESETS)
    found = with_formats(plain, written)
    kept = Format("template of merges/gradient-3", ("END",))
    assert [m.prompt_format for m in found.models] == [kept, "vicuna", "alpaca"]
    assert load_design(yaml.safe_dump(found.as_data()), "again", {}) == found
    assert with_formats(found, lambda source, name: ("another", ())).models[0] == found.models[0]
    changed = with_formats(plain, lambda source, name: None if name else ("template", ("END",)))
    assert len({plain.hash, found.hash, changed.hash}) == 3
    assert with_formats(plain, lambda source, name: None).hash == plain.hash


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("votes_per_prompt: 2", "votes_per_promt: 2", r'line 13.*mean "votes_per_prompt"'),
        ("votes_per_prompt: 2", "votes_per_prompt: two", "line 13: .*: expected a whole number"),
        ("votes_per_prompt: 2", "votes_per_prompt: 10", "10 different pairs .* 3 draws give 9"),
        ("votes_per_prompt: 2", "draws: 2", "draws is 2: an answer is luck"),
        ("votes_per_prompt: 2", "alpha: true", "alpha: expected a whole number or a number"),
        ("votes_per_prompt: 2", "alpha: 0.5", "alpha is 0.5; use 0 to 0.2"),
        ("sampling: creative", "sampling: creativ", 'no preset "creativ".*did you mean "creative"'),
        ("compare: merged", "compare: some", '"some" is none of primary, merged, all'),
        ("reveal: each", "reveal: never", '"never" is none of end, each'),
        ("primary: [merged, xwin]", "primary: [merged]", "expected two labels"),
        ("primary: [merged, xwin]", "primary: [merged, xwim]", '"xwim" is none of the models'),
        ("{label: merged,", "{label: '=cmd',", '"=cmd" cannot be a model\'s label'),
        ("{label: merged,", "{labl: merged,", 'unknown key "labl"'),
        ("name: gradient-3", "name: Gradient 3", "use lower-case letters"),
        ("faster_than: 1.5", "faster: 1.5", 'exclusions: unknown key "faster"'),
        ("reveal: each", "reveal: each\nreveal: end", "a key is given twice"),
        ("project: creative", "", "project: is missing; demo/trial.yaml shows"),
        ("prompt_format: vicuna", "prompt_format: {stop: [a]}", "a name, or template and stop"),
        ("prompt_format: vicuna", "prompt_format: {template: ''}", "template: expected text"),
        ("prompt_format: vicuna", "prompt_format: {template: x, stop: ['']}", "stop: expected a"),
        ("name: gradient-3", "name: [", "line 3: this is not valid YAML"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(old: str, new: str, told: str) -> None:
    assert old in YAML
    with pytest.raises(StudioError, match=told) as error:
        load_design(YAML.replace(old, new), "TRIAL.yaml", PRESETS)
    assert str(error.value).startswith("TRIAL.yaml")
