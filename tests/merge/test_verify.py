"""A finished merge, read again: whole ones pass, and every kind of damage is named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from studio.errors import StudioError
from studio.merge.companions import write_companions
from studio.merge.recipe_files.recipe_dump import fingerprint
from studio.merge.verify import verify
from studio.weights.header import read_header
from studio.weights.writer import digest_file
from tests.merge.finished import Finished, finish, write_model

INDEX = "model.safetensors.index.json"
REPORT = "merge-report.json"


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    models = [write_model(tmp_path / name, seed) for seed, name in enumerate("abc")]
    done = finish(tmp_path, models, shard_bytes=600)
    write_companions(done.plan, done.folder, done.records, 1.0)
    return done


def first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_whole_merge_passes_and_says_what_was_checked(finished: Finished) -> None:
    told: list[str] = []
    lines = verify(finished.folder, told.append)
    assert lines == told
    assert len(lines) == 4 + len(finished.plan.shards)
    assert "files that were written are there" in lines[0]
    assert "size, header, digest and values" in lines[1]
    assert f"{INDEX}: 9 tensors" in lines[-3]
    assert "config.json: 3 layers, 16 tokens" in lines[-2]
    assert fingerprint(finished.plan.recipe) in lines[-1]


def test_merge_of_one_shard_passes(tmp_path: Path) -> None:
    models = [write_model(tmp_path / name, seed) for seed, name in enumerate("abc")]
    done = finish(tmp_path, models)
    write_companions(done.plan, done.folder, done.records, 1.0)
    assert any("model.safetensors: size" in line for line in verify(done.folder))


def test_card_may_be_edited(finished: Finished) -> None:
    (finished.folder / "README.md").write_text("my own words")
    verify(finished.folder)


def flip_a_bit(folder: Path) -> None:
    path = first_shard(folder)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    path = first_shard(folder)
    path.write_bytes(path.read_bytes()[:-4])


def break_header(folder: Path) -> None:
    path = first_shard(folder)
    content = path.read_bytes()
    path.write_bytes(content[:8] + b"[" + content[9:])


def poison(folder: Path) -> None:
    """A NaN that was written and digested like any other value."""
    path = first_shard(folder)
    info = next(iter(read_header(path).values()))
    content = bytearray(path.read_bytes())
    content[info.start : info.start + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    digest = digest_file(path)
    edit(folder / REPORT, lambda report: report["shards"][0].update(digest=digest))


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("bit", flip_a_bit, r"model-00001-of-\d+.safetensors: its digest is .* bytes have changed"),
    ("cut", cut_short, r"bytes long, [\d,]+ were written"),
    ("header", break_header, "the header begins with"),
    ("nan", poison, "NaN or infinite values in model.layers.0.input_layernorm.weight"),
    ("shard", lambda f: first_shard(f).unlink(), r"model-00001-of-\d+.safetensors is missing"),
    ("tokenizer", lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    ("bad tokenizer", lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json has chan"),
    (
        "heads",
        lambda f: edit(f / "config.json", lambda c: c.update(num_attention_heads=7)),
        "config.json has changed since it was written",
    ),
    ("card", lambda f: (f / "README.md").unlink(), "README.md is missing"),
    ("index", lambda f: (f / INDEX).unlink(), "so tools cannot find the weights"),
    (
        "map",
        lambda f: edit(f / INDEX, lambda c: c["weight_map"].update({"lm_head.weight": "x"})),
        "disagree about lm_head.weight",
    ),
    (
        "extra name",
        lambda f: edit(f / INDEX, lambda c: c["weight_map"].update({"ghost": "x"})),
        "disagree about ghost",
    ),
    (
        "total",
        lambda f: edit(f / INDEX, lambda c: c["metadata"].update(total_size=1)),
        "total_size should be",
    ),
    (
        "stray",
        lambda f: (f / "model.safetensors").write_bytes(b""),
        "model.safetensors is not a file of this merge",
    ),
    (
        "rows",
        lambda f: edit(f / "config.json", lambda c: c.update(vocab_size=17)),
        "vocab_size is 17, model.embed_tokens.weight has 16",
    ),
    (
        "layers",
        lambda f: edit(f / "config.json", lambda c: c.update(num_hidden_layers=4)),
        "config.json says 4 layers",
    ),
    (
        "tied",
        lambda f: edit(f / "config.json", lambda c: c.update(tie_word_embeddings=True)),
        "ties the output head",
    ),
    (
        "dtype",
        lambda f: edit(f / "config.json", lambda c: c.update(torch_dtype="bfloat16")),
        "dtype is bfloat16, the weights are float32",
    ),
    (
        "recipe",
        lambda f: (f / "recipe.yaml").write_text(
            (f / "recipe.yaml").read_text().replace("0.3", "0.31")
        ),
        "recipe.yaml is not the recipe of this merge",
    ),
    ("no recipe", lambda f: (f / "recipe.yaml").write_text("a: b"), "recipe.yaml cannot be read"),
    (
        "report",
        lambda f: edit(f / REPORT, lambda c: c["shards"][0].update(file="../a")),
        "does not describe a shard",
    ),
    ("files", lambda f: edit(f / REPORT, lambda c: c.update(files=["a"])), "not digests by name"),
    ("format", lambda f: edit(f / REPORT, lambda c: c.update(format=9)), "not a report of format"),
    ("no report", lambda f: (f / REPORT).unlink(), "no merge-report.json"),
]


@pytest.mark.parametrize(
    ("damage", "message"), [row[1:] for row in DAMAGE], ids=[r[0] for r in DAMAGE]
)
def test_damage_is_found(
    finished: Finished, damage: Callable[[Path], object], message: str
) -> None:
    damage(finished.folder)
    with pytest.raises(StudioError, match=message):
        verify(finished.folder)


def test_all_damage_is_told_at_once(finished: Finished) -> None:
    flip_a_bit(finished.folder)
    (finished.folder / "tokenizer.json").unlink()
    edit(finished.folder / "config.json", lambda config: config.update(vocab_size=17))
    told: list[str] = []
    with pytest.raises(StudioError) as caught:
        verify(finished.folder, told.append)
    for word in ("digest", "tokenizer.json is missing", "vocab_size is 17"):
        assert word in str(caught.value)
    assert any("recipe.yaml" in line for line in told)  # what is whole is told all the same


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="no such folder"):
        verify(tmp_path / "nowhere")
