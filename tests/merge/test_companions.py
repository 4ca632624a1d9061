"""What stands beside the weights of a finished merge."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from studio.chat_template import named
from studio.errors import StudioError
from studio.merge import companions
from studio.merge.companions import write_companions
from studio.merge.recipe_files.recipe_yaml import load_recipe
from tests.merge.finished import TOKENIZER, Finished, finish, write_model


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [write_model(tmp_path / name, seed) for seed, name in enumerate("abc")]


def read(finished: Finished, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((finished.folder / name).read_text())
    return found


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_companions_of_one_shard(tmp_path: Path, models: list[Path]) -> None:
    finished = finish(tmp_path, models)
    shards = snapshot(finished.folder)
    write_companions(finished.plan, finished.folder, finished.records, 1.5)
    after = snapshot(finished.folder)
    assert after.keys() == {
        "README.md", "config.json", "generation_config.json", "merge-report.json",
        "model.safetensors", "recipe.yaml", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert after["model.safetensors"] == shards["model.safetensors"]
    for name in TOKENIZER:
        assert after[name] == (models[0] / name).read_bytes()
    assert read(finished, "config.json") == dict(finished.plan.config)
    assert load_recipe(after["recipe.yaml"].decode()) == finished.plan.recipe
    assert read(finished, "merge-report.json")["files"] == {
        name: sha256(content).hexdigest()
        for name, content in after.items()
        if name not in ("model.safetensors", "merge-report.json")
    }


def test_companions_of_several_shards_have_an_index(tmp_path: Path, models: list[Path]) -> None:
    finished = finish(tmp_path, models, shard_bytes=600)
    write_companions(finished.plan, finished.folder, finished.records, 1.5)
    index = read(finished, "model.safetensors.index.json")
    jobs = {job.name: shard.file for shard in finished.plan.shards for job in shard.tensors}
    assert len(set(jobs.values())) > 1
    assert index["weight_map"] == jobs
    assert list(jobs) != sorted(jobs) and list(index["weight_map"]) == sorted(jobs)
    # The size of the tensors alone, as transformers writes it, and not of the files.
    assert index["metadata"] == {"total_size": sum(s.nbytes for s in finished.plan.shards)}


def test_companions_are_the_same_bytes_but_for_the_time(tmp_path: Path, models: list[Path]) -> None:
    finished = finish(tmp_path, models, recipe=RECIPE_WITH.format(template="chatml"))
    write_companions(finished.plan, finished.folder, finished.records, 1.5)
    first = snapshot(finished.folder)
    write_companions(finished.plan, finished.folder, finished.records, 2.5)
    second = snapshot(finished.folder)
    report = second.pop("merge-report.json").replace(b'"seconds": 2.5', b'"seconds": 1.5')
    assert report == first.pop("merge-report.json")
    assert second == first


RECIPE_WITH = """
merge_method: linear
models:
  - {{{{model: {{a}}, parameters: {{{{weight: 1}}}}}}}}
  - {{{{model: {{b}}, parameters: {{{{weight: 1}}}}}}}}
  - {{{{model: {{c}}, parameters: {{{{weight: 1}}}}}}}}
chat_template: {template}
"""


def test_template_stands_in_both_places_and_nowhere_else_is_changed(
    tmp_path: Path, models: list[Path]
) -> None:
    (models[0] / "chat_template.jinja").write_text("{{ 'the old one' }}")
    config = TOKENIZER["tokenizer_config.json"] | {"chat_template": "old", "model_max_length": 9}
    (models[0] / "tokenizer_config.json").write_text(json.dumps(config))
    finished = finish(tmp_path, models, recipe=RECIPE_WITH.format(template="vicuna"))
    write_companions(finished.plan, finished.folder, finished.records, 0.0)
    assert (finished.folder / "chat_template.jinja").read_text() == named("vicuna")
    assert read(finished, "tokenizer_config.json") == config | {"chat_template": named("vicuna")}


def test_template_without_tokenizer_config(tmp_path: Path, models: list[Path]) -> None:
    for name in ("tokenizer_config.json", "tokenizer.json", "generation_config.json"):
        (models[0] / name).unlink()
    finished = finish(tmp_path, models, recipe=RECIPE_WITH.format(template="alpaca"))
    write_companions(finished.plan, finished.folder, finished.records, 0.0)
    assert (finished.folder / "chat_template.jinja").read_text() == named("alpaca")
    assert not (finished.folder / "tokenizer_config.json").exists()


def test_transformers_loads_the_tokenizer_with_the_template(
    tmp_path: Path, models: list[Path]
) -> None:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", "Hi", "USER", "ASSISTANT", ":"]
    inner = Tokenizer(kinds.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", chat_template="{{ 'old' }}"
    )
    for folder in models:
        fast.save_pretrained(folder)
    assert (models[0] / "chat_template.jinja").is_file()  # where transformers itself puts it
    finished = finish(tmp_path, models, recipe=RECIPE_WITH.format(template="vicuna"))
    write_companions(finished.plan, finished.folder, finished.records, 0.0)
    tokenizer = AutoTokenizer.from_pretrained(finished.folder)
    assert tokenizer.chat_template == named("vicuna")
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.convert_ids_to_tokens(found) == ["<s>", "USER", ":", "Hi", "ASSISTANT", ":"]


def test_no_template_asked_for_leaves_the_base_s_own(tmp_path: Path, models: list[Path]) -> None:
    (models[0] / "chat_template.jinja").write_text("{{ messages }}")
    (models[1] / "chat_template.jinja").write_text("{{ another }}")
    finished = finish(tmp_path, models)
    write_companions(finished.plan, finished.folder, finished.records, 0.0)
    assert (finished.folder / "chat_template.jinja").read_text() == "{{ messages }}"


def test_code_of_a_source_is_not_copied(tmp_path: Path, models: list[Path]) -> None:
    (models[0] / "tokenization_evil.py").write_text("import os")
    finished = finish(tmp_path, models)
    write_companions(finished.plan, finished.folder, finished.records, 0.0)
    assert not list(finished.folder.glob("*.py"))


def test_links_of_a_hub_cache_become_files(tmp_path: Path, models: list[Path]) -> None:
    blob = tmp_path / "blob"
    (models[0] / "tokenizer.json").rename(blob)
    (models[0] / "tokenizer.json").symlink_to(blob)
    finished = finish(tmp_path, models)
    write_companions(finished.plan, finished.folder, finished.records, 0.0)
    assert not (finished.folder / "tokenizer.json").is_symlink()
    assert (finished.folder / "tokenizer.json").read_bytes() == blob.read_bytes()


def test_every_file_is_synced(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(companions.os, "fsync", synced.append)
    finished = finish(tmp_path, models)
    count = len(list(finished.folder.iterdir()))
    write_companions(finished.plan, finished.folder, finished.records, 0.0)
    written = len(list(finished.folder.iterdir())) - count
    assert len(synced) == written + 1  # and the folder itself


def test_full_disk_says_that_the_weights_are_kept(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    finished = finish(tmp_path, models)
    monkeypatch.setattr(companions.os, "fsync", fail)
    with pytest.raises(StudioError, match="No space left on device.*finished weights are kept"):
        write_companions(finished.plan, finished.folder, finished.records, 0.0)
