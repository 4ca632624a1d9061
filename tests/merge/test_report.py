"""merge-report.json: the numbers are those of the merge, and the file stays small."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studio import __version__
from studio.merge.journal import ShardRecord, TensorRecord
from studio.merge.layout import Layout
from studio.merge.plan import Plan, ShardJob, TensorJob
from studio.merge.recipe_files.recipe_dump import fingerprint
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.merge.report import Report, make_report, report_text
from tests.merge.finished import SHAPES, Finished, finish, write_model


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    models = [write_model(tmp_path / name, seed) for seed, name in enumerate("abc")]
    return finish(tmp_path, models, shard_bytes=600)


@pytest.fixture
def report(finished: Finished) -> Report:
    return make_report(finished.plan, finished.records, 12.34567)


def tensor(report: Report, name: str) -> dict[str, object]:
    found: dict[str, object] = next(t for t in report["tensors"] if t["name"] == name)
    return found


def test_report_names_what_was_merged(finished: Finished, report: Report) -> None:
    assert (report["format"], report["studio"]) == (2, __version__)
    assert load_recipe(report["recipe"]["yaml"]) == finished.plan.recipe
    assert report["recipe"]["fingerprint"] == fingerprint(finished.plan.recipe)
    assert [s["name"] for s in report["sources"]] == ["a", "b", "c"]
    assert [s["fingerprint"] for s in report["sources"]] == [
        source.fingerprint() for source in finished.plan.sources
    ]
    parameters = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert {s["bytes"] for s in report["sources"]} == {4 * parameters}
    assert report["summary"]["parameters"] == parameters
    assert report["summary"]["tensors"] == len(report["tensors"]) == len(SHAPES)
    assert (report["dtype"], report["seconds"]) == ("float32", 12.346)
    assert report["bytes_read"] == 3 * 4 * parameters
    sizes = [(finished.folder / s["file"]).stat().st_size for s in report["shards"]]
    assert [s["size"] for s in report["shards"]] == sizes
    assert report["bytes_written"] == sum(sizes)


def test_report_text_is_json_with_a_line_a_tensor(report: Report) -> None:
    text = report_text(report)
    assert json.loads(text) == report
    assert text.rstrip().endswith("}\n ]\n}")
    assert all(sum(f'"{name}"' in row for row in text.splitlines()) == 1 for name in SHAPES)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_tensor_numbers_against_the_weights_themselves(
    finished: Finished, report: Report, name: str
) -> None:
    entry = tensor(report, name)
    a, b, c = (s.load(name).flatten().double().numpy() for s in finished.plan.sources)
    u, v, w = entry["weights"]
    result = u * a + v * b + w * c
    inner = entry["t"]["first"]
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    first = (np.sin((1 - inner) * angle) * a + np.sin(inner * angle) * b) / np.sin(angle)
    cosine = first @ c / np.linalg.norm(first) / np.linalg.norm(c)
    assert entry["cosine"]["Result"] == pytest.approx(cosine, abs=1e-5)
    assert entry["angles"]["first"] == pytest.approx(np.degrees(angle), rel=1e-5)
    assert entry["norm"] == pytest.approx(np.linalg.norm(result), rel=1e-5)
    mean = np.mean([np.linalg.norm(x) for x in (a, b, c)])
    assert entry["norm_ratio"] == pytest.approx(np.linalg.norm(result) / mean, rel=1e-5)
    assert entry["shares"] == pytest.approx(np.array([u, v, w]) / (u + v + w), rel=1e-5)
    assert entry["linear"] == []


def test_t_layers_and_places(report: Report) -> None:
    middle = tensor(report, "model.layers.1.mlp.up_proj.weight")
    assert middle["t"] == {"first": 0.3, "Result": 0.5}
    assert (middle["layer"], middle["place"]) == (1, "layer")
    head = tensor(report, "lm_head.weight")
    assert head["t"] == {"first": 0.25, "Result": 0.4}
    assert (head["layer"], head["place"]) == (-1, "head")


def test_linear_stages_are_told(report: Report) -> None:
    norm = tensor(report, "model.norm.weight")
    assert norm["linear"] == ["first", "Result"]
    assert norm["weights"] == pytest.approx([0.75 * 0.6, 0.25 * 0.6, 0.4])
    sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    expected = sum(size for name, size in sizes.items() if "norm" in name) / sum(sizes.values())
    assert report["summary"]["linear"] == {
        "first": pytest.approx(expected, rel=1e-5),
        "Result": pytest.approx(expected, rel=1e-5),
    }


def test_overall_shares_are_weighted_by_size(report: Report) -> None:
    sizes = np.array([np.prod(SHAPES[t["name"]]) for t in report["tensors"]])
    shares = np.array([t["shares"] for t in report["tensors"]])
    expected = sizes @ shares / sizes.sum()
    assert list(report["summary"]["shares"].values()) == pytest.approx(expected, rel=1e-5)
    assert sum(report["summary"]["shares"].values()) == pytest.approx(1)


def test_linear_method_reports_weights_instead_of_t(tmp_path: Path) -> None:
    models = [write_model(tmp_path / name, seed) for seed, name in enumerate("abc")]
    recipe = """
merge_method: linear
models:
  - {{model: {a}, parameters: {{weight: 1}}}}
  - {{model: {b}, parameters: {{weight: [2, 4]}}}}
  - {{model: {c}, parameters: {{weight: 1}}}}
"""
    finished = finish(tmp_path, models, recipe=recipe)
    report = make_report(finished.plan, finished.records, 1.0)
    entry = tensor(report, "model.layers.2.mlp.up_proj.weight")
    assert "t" not in entry and entry["weight"] == {"Result": [1, 4, 1]}
    assert entry["shares"] == pytest.approx([1 / 6, 4 / 6, 1 / 6], rel=1e-5)
    assert (entry["linear"], entry["cosine"], report["summary"]["linear"]) == ([], {}, {})


def test_report_of_a_70b_merge_is_small(finished: Finished) -> None:
    parts = (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
        "post_attention_layernorm",
    )  # fmt: skip
    names = [f"model.layers.{i}.{part}.weight" for i in range(80) for part in parts]
    names += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    assert len(names) == 723
    layout = Layout.of(names, 80)
    info = next(iter(finished.plan.sources[0].tensors.values()))
    jobs = tuple(TensorJob(name, (8192, 8192), "F16", (info,) * 3, (0, 1, 2)) for name in names)
    recipe = load_recipe(HOUSE_RECIPE.read_text())
    sources = tuple(
        replace(source, label=label)
        for source, label in zip(finished.plan.sources, recipe.sources, strict=True)
    )
    plan = Plan(
        recipe, finished.plan.options, sources, layout, (ShardJob("m", jobs),), "F16", CONFIG_70B
    )
    rng = np.random.default_rng(0)
    tensors = {}
    for name in names:
        x = rng.normal(size=(3, 5))
        tensors[name] = TensorRecord((x @ x.T).tolist(), rng.random(3).tolist())
    report = make_report(plan, [ShardRecord("m", 1, "d", tensors)], 1.0)
    middle = tensor(report, "model.layers.40.mlp.up_proj.weight")["t"]
    assert middle == {"component-1": 0.302532, "component-2": 0.299367, "Result": 0.5}
    head = tensor(report, "lm_head.weight")["t"]
    assert head == {"component-1": 0.25, "component-2": 0.4, "Result": 0.5}
    text = report_text(report)
    assert len(text) < 2_000_000
    assert len(json.loads(text)["tensors"]) == 723


HOUSE_RECIPE = Path(__file__).parents[2] / "recipes" / "creative-70b.yaml"
CONFIG_70B = {"num_hidden_layers": 80}
