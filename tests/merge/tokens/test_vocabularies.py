"""Vocabularies that differ: shown beside each other, refused with the setting, merged with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.cli import main
from studio.errors import StudioError
from studio.merge.geometry.grams import Grams
from studio.merge.geometry.measure import known_or_measured, measure, measuring
from studio.merge.geometry.sampling import estimates
from studio.merge.plan import Options, Plan
from studio.merge.preflight import check
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.merge.run import Progress, merge
from studio.merge.tokens.vocabularies import vocabulary_table
from tests.checkpoints import write_checkpoint, write_tokenizer

WORDS = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(3, 30))]
TABLE = "model.embed_tokens.weight"


def model(folder: Path, *added: str, words: list[str] = WORDS, rows: int = 0, **more: Any) -> Path:
    rows = rows or len(words) + len(added)
    seed = ord(folder.name[0])
    write_checkpoint(folder, layers=2, vocab_size=rows, seed=seed, near=(9, 0.2), **more)
    write_tokenizer(folder, words, added)
    return folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a: the words; b: <pad> as well; c: the words turned round and two tokens more."""
    monkeypatch.chdir(tmp_path)
    model(Path("a"))
    model(Path("b"), "<pad>")
    model(Path("c"), "<im>", "<pad>", words=[*WORDS[:3], *WORDS[:2:-1]])
    return tmp_path


def recipe(tokenizer: str = "", models: str = "ab", dtype: str = "float32") -> str:
    listed = ", ".join(f"{{model: {name}}}" for name in models)
    setting = f"tokenizer_source: {tokenizer}\n" if tokenizer else ""
    method = "merge_method: slerp\nparameters: {t: 0.4}"
    if len(models) != 2:
        method = "merge_method: karcher"
    base = f"base_model: {models[0]}\n"
    return f"{method}\n{base}models: [{listed}]\ndtype: {dtype}\n{setting}"


def plan_of(text: str, **options: Any) -> Plan:
    return check(load_recipe(text), Options(**options))


def run(text: str, out: str = "out", **options: Any) -> dict[str, torch.Tensor]:
    folder = merge(plan_of(text, **options), Path(out), lambda progress: None)
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def test_table_tells_rows_tokens_and_what_is_not_everyones(models: Path) -> None:
    folders = {name: Path(name) for name in "abc"}
    first, second, third = vocabulary_table(folders, {"a": 30, "b": 31})
    counts = {"rows": 30, "tokens": 30, "lacks": 2, "moved": 0, "owns": 0}
    assert first == {"model": "a", "own": [], **counts}
    assert second["own"] == [{"id": 30, "token": "<pad>"}]
    assert (third["rows"], third["lacks"], third["owns"]) == (None, 0, 2)
    assert (second["moved"], third["moved"]) == (0, 26)


def test_rows_that_differ_are_refused_with_the_table_and_the_setting(models: Path) -> None:
    with pytest.raises(StudioError, match="tokenizer_source: base.*, union") as caught:
        plan_of(recipe())
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert lines[-3:] == [
        "model rows tokens lacks at other ids has, and some other lacks",
        "a 30 30 1 0 –",
        "b 31 31 0 0 '<pad>' (30)",
    ]
    assert [entry["model"] for entry in caught.value.data["vocabularies"]] == ["a", "b"]


def test_ids_of_other_meaning_are_refused_with_the_table(models: Path) -> None:
    """The rows are as many, and neither has a token that the other lacks."""
    model(Path("d"), words=[*WORDS[:3], *WORDS[:2:-1]])
    with pytest.raises(StudioError, match="26 ids different meanings") as caught:
        plan_of(recipe("", "ad"))
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert lines[-2:] == ["a 30 30 0 0 –", "d 30 30 0 26 –"]
    assert [entry["moved"] for entry in caught.value.data["vocabularies"]] == [0, 26]
    assert plan_of(recipe("base", "ad")).alignment is not None


def test_ids_of_other_meaning_that_are_allowed_are_no_problem(models: Path) -> None:
    model(Path("d"), words=[*WORDS[:3], *WORDS[:2:-1]])
    plan = plan_of(recipe("", "ad"), allow=frozenset({"tokenizer"}))
    assert any("26 ids different meanings" in warning for warning in plan.warnings)
    Path("d/model.safetensors").unlink()
    with pytest.raises(StudioError, match="d: no weights") as caught:
        plan_of(recipe("", "ad"), allow=frozenset({"tokenizer"}))
    assert caught.value.data == {}


def test_vocabularies_are_compared_though_a_source_cannot_be_opened(models: Path) -> None:
    Path("b/model.safetensors").unlink()
    with pytest.raises(StudioError, match="- b: no weights") as caught:
        plan_of(recipe())
    assert "- the vocabularies have different sizes (a: 30, b: 31); merge by" in str(caught.value)
    assert [entry["rows"] for entry in caught.value.data["vocabularies"]] == [30, 31]


def test_damaged_tokenizer_is_listed_beside_different_rows(models: Path) -> None:
    Path("b/tokenizer.json").write_text("{")
    with pytest.raises(StudioError, match="- b/tokenizer.json: this is not a tokenizer") as caught:
        plan_of(recipe())
    assert "the vocabularies have different sizes" in str(caught.value)
    assert caught.value.data == {}


def test_head_of_other_rows_than_the_embeddings_cannot_be_aligned(models: Path) -> None:
    tensors = load_file("b/model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()
    save_file(tensors, "b/model.safetensors")
    with pytest.raises(StudioError, match="output head has as many rows as their embeddings"):
        plan_of(recipe("union"))


def test_check_gives_the_table_to_programs(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(recipe())
    assert main(["check", "recipe.yaml", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["vocabularies"][1]["own"] == [{"id": 30, "token": "<pad>"}]
    Path("recipe.yaml").write_text(recipe("union"))
    assert main(["check", "recipe.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "a lacks 1 ('<pad>') of 31 tokens" in told["notes"][0]
    assert [entry["rows"] for entry in told["vocabularies"]] == [30, 31]


@pytest.mark.parametrize("tokenizer", ["base", "union", "c"])
def test_any_cut_of_the_files_gives_the_same_rows(models: Path, tokenizer: str) -> None:
    """Small shards and blocks that end within a row change no bit."""
    text = recipe(tokenizer, "ac", "bfloat16")
    whole = run(text)
    parts = run(text, "parts", shard_bytes=3000)
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_a_tensor_of_many_blocks_is_aligned_in_all_of_them(tmp_path: Path) -> None:
    """Rows turned round, in pieces and blocks: at t = 0 the base's rows, at t = 1 the other's."""
    words = [*WORDS[:3], *(f"w{i}" for i in range(3, 3000))]
    sizes = {
        "hidden_size": 1024,
        "num_attention_heads": 4,
        "intermediate_size": 8,
        "dtype": "float32",
    }
    a = model(tmp_path / "a", words=words, **sizes)
    b = model(tmp_path / "b", "<x>", words=[*words[:3], *words[:2:-1]], **sizes)
    for t, expected in ((0, a), (1, b)):
        text = f"""
merge_method: slerp
base_model: {a}
models: [{{model: {b}}}]
parameters: {{t: {t}}}
tokenizer_source: base
"""
        plan = check(load_recipe(text), Options())
        found = load_file(
            merge(plan, tmp_path / f"out-{t}", lambda progress: None) / "model.safetensors"
        )[TABLE]
        own = load_file(expected / "model.safetensors")[TABLE]
        rows = list(range(3000)) if t == 0 else [0, 1, 2, *range(2999, 2, -1)]
        assert torch.equal(found, own[rows])


def test_interrupted_merge_goes_on_only_with_the_same_tokenizers(models: Path) -> None:
    text = recipe("union", "ac")
    plan = plan_of(text, shard_bytes=3000)

    def stop(progress: Progress) -> None:
        if progress.done > plan.bytes_written / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(plan, Path("out"), stop)
    seen: list[Progress] = []
    write_tokenizer(Path("c"), WORDS, ["<im>", "<pad>"])
    merge(plan_of(text, shard_bytes=3000), Path("out"), seen.append)
    assert seen[0].resumed == 0
    other = run(text, "fresh")
    again = {}
    for file in Path("out").glob("*.safetensors"):
        again |= load_file(file)
    assert [name for name in other if not torch.equal(other[name], again[name])] == []


def test_measured_and_sampled_geometry_is_of_the_aligned_rows(models: Path) -> None:
    aligned = plan_of(recipe("base", "ac"))
    row = aligned.layout.names.index(TABLE)
    gram = measure(aligned)[row]
    a, c = (load_file(Path(name) / "model.safetensors")[TABLE].double() for name in "ac")
    laid_out = torch.stack([a, c[[0, 1, 2, *range(29, 2, -1)]]]).flatten(1)
    assert gram == pytest.approx((laid_out @ laid_out.T).numpy())
    *_, estimate = estimates(aligned, 2)
    assert estimate.gram[row] == pytest.approx(gram, rel=1e-5)
    wanted = measuring(load_recipe(recipe("base", "ac")), None)
    assert measure(check(wanted, Options()))[row] == pytest.approx(gram)


def test_kept_geometry_depends_on_the_alignment(models: Path) -> None:
    said: list[str] = []
    grams = Grams(Path("grams"), said.append)
    base, union = (plan_of(recipe(word, "ac")) for word in ("base", "union"))
    row = base.layout.names.index(TABLE)
    known_or_measured(base, grams)
    found = grams.load(union)
    assert np.isnan(found[row]).all()
    assert not np.isnan(found[base.layout.names.index("model.norm.weight")]).any()
    assert not np.isnan(grams.load(base)).any()
    assert said == []


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (
            lambda: Path("a/tokenizer.json").unlink(),
            "a: neither tokenizer.json nor a SentencePiece",
        ),
        (
            lambda: write_tokenizer(Path("a"), [*WORDS, "more"]),
            r"a: the tokenizer has 1 \('more'\) trained tokens for which the model has no row",
        ),
        (
            lambda: Path("a/tokenizer.json").write_text("{"),
            "a/tokenizer.json: this is not a tokenizer file",
        ),
    ],
)
def test_tokenizers_that_cannot_be_aligned_are_refused(
    models: Path, break_it: Any, match: str
) -> None:
    break_it()
    with pytest.raises(StudioError, match=match):
        plan_of(recipe("union"))


def test_added_token_without_a_row_is_left_out_of_the_files(models: Path) -> None:
    """And what names it as a role: a loader would add it again, behind the last row."""
    from transformers import AutoTokenizer

    write_tokenizer(Path("a"), WORDS, ["<pad>"])
    settings = json.loads(Path("a/tokenizer_config.json").read_text()) | {"pad_token": "<pad>"}
    Path("a/tokenizer_config.json").write_text(json.dumps(settings))
    Path("a/special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<pad>"}}))
    plan = plan_of(recipe("base"))
    assert any("1 ('<pad>') tokens beyond them" in warning for warning in plan.warnings)
    folder = merge(plan, Path("out"), lambda progress: None)
    assert sorted(AutoTokenizer.from_pretrained(folder).get_vocab().values()) == list(range(30))
    assert load_file(folder / "model.safetensors")[TABLE].shape[0] == 30


def test_source_without_a_tokenizer_counts_as_the_base(models: Path) -> None:
    model(Path("d"))
    Path("d/tokenizer.json").unlink()
    plan = plan_of(recipe("base", "ad"))
    assert any(
        "d ships no tokenizer; its rows are taken for those of a" in w for w in plan.warnings
    )
    plain = run(recipe("", "ad"), "plain")
    found = run(recipe("base", "ad"))
    assert [name for name in plain if not torch.equal(plain[name], found[name])] == []


def test_card_tells_whose_tokens_the_result_has(models: Path) -> None:
    run(recipe("union", "ac"))
    assert "Rows were merged by token, into 32 tokens that begin with those of `a`." in (
        Path("out/README.md").read_text()
    )


def test_special_ids_are_those_of_the_model_that_gives_the_tokenizer(models: Path) -> None:
    for name, number in (("a", 1), ("c", 2)):
        config = json.loads((Path(name) / "config.json").read_text()) | {"eos_token_id": number}
        Path(name, "config.json").write_text(json.dumps(config))
    assert plan_of(recipe("c", "ac")).config["eos_token_id"] == 2
    assert plan_of(recipe("union", "ac")).config["eos_token_id"] == 1


def test_vocabulary_of_sentencepiece_and_added_tokens(tmp_path: Path) -> None:
    from studio.merge.tokens.vocabulary import read_vocabulary

    pieces = b"".join(
        b"\x0a" + bytes([len(text) + 7]) + b"\x0a" + bytes([len(text)]) + text + b"\x15\0\0\0\0"
        for text in (b"<unk>", b"\xe2\x96\x81a", b"b")
    )
    (tmp_path / "tokenizer.model").write_bytes(pieces + b"\x12\x02\x18\x01")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": 3, "<other>": 1}))
    decoder = {"4": {"content": "<x>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    found = read_vocabulary(tmp_path)
    assert found is not None
    assert found.by_id == {0: "<unk>", 1: "▁a", 2: "b", 3: "<pad>", 4: "<x>"}
    assert found.added == {"<pad>": {}, "<x>": {"special": True}}
    (tmp_path / "tokenizer.model").write_bytes(pieces[:-3])
    assert read_vocabulary(tmp_path) is None
