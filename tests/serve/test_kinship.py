"""Which model can take the place of which: the demo models, and what differs from them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.kinship import differences
from tests.serve.engines import DEMO


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = folder / "other"
    shutil.copytree(DEMO / "story", copy)
    data = json.loads((copy / name).read_text())
    change(data)
    (copy / name).write_text(json.dumps(data))
    return copy


def test_models_of_one_family_differ_in_nothing_that_counts() -> None:
    for name in ("base", "instruct", "roleplay"):
        assert differences(DEMO / name, DEMO / "story") == []


@pytest.mark.parametrize(
    ("key", "value"), [("rope_parameters", {"rope_theta": 5e5}), ("num_attention_heads", 4)]
)
def test_another_config_is_refused(tmp_path: Path, key: str, value: object) -> None:
    other = edited(tmp_path, "config.json", lambda data: data.update({key: value}))
    found = differences(DEMO / "story", other)
    assert len(found) == 1 and f"config.json has {key}" in found[0]


def test_who_made_the_model_does_not_count(tmp_path: Path) -> None:
    other = edited(
        tmp_path, "config.json", lambda d: d.update(transformers_version="4.1", _name_or_path="x")
    )
    assert differences(DEMO / "story", other) == []


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    def swap(data: dict[str, Any]) -> None:
        words = data["model"]["vocab"]
        first, second = list(words)[500:502]
        words[first], words[second] = words[second], words[first]

    found = differences(DEMO / "story", edited(tmp_path, "tokenizer.json", swap))
    assert found == [
        "other: its tokenizer differs from the one the engine was started with; start an engine "
        "for it instead"
    ]


def test_how_a_tokenizer_pads_does_not_count(tmp_path: Path) -> None:
    other = edited(tmp_path, "tokenizer.json", lambda data: data.update(padding={"length": 9}))
    assert differences(DEMO / "story", other) == []


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="there is no folder"):
        differences(DEMO / "story", tmp_path / "nowhere")
