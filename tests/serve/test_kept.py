"""Presets that a user saves."""

from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.serve.kept import MOST, Presets
from studio.serve.sampling import PRESETS, Sampling


def test_presets_survive_and_the_studios_come_first(tmp_path: Path) -> None:
    Presets(tmp_path).save("my own", {"temperature": 0.9, "stop": ["x"]})
    found = Presets(tmp_path).all()
    assert list(found) == [*PRESETS, "my own"]
    assert found["my own"] == Sampling(temperature=0.9, stop=("x",))
    Presets(tmp_path).forget("my own")
    assert list(Presets(tmp_path).all()) == list(PRESETS)
    assert {path.name for path in tmp_path.iterdir()} == {"presets.json", ".lock"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("greedy", {}, "is a preset of the studio"),
        ("", {}, "cannot name a preset"),
        ("a/b", {}, "cannot name a preset"),
        (7, {}, "cannot name a preset"),
        ("fine", {"temperature": 9}, "temperature is 9"),
        ("fine", {"temprature": 1}, "did you mean"),
    ],
)
def test_presets_refuse(tmp_path: Path, name: object, data: object, message: str) -> None:
    with pytest.raises(StudioError, match=message):
        Presets(tmp_path).save(name, data)
    assert not list(tmp_path.iterdir())


def test_presets_have_an_end(tmp_path: Path) -> None:
    presets = Presets(tmp_path)
    (tmp_path / "presets.json").write_text(
        "{" + ",".join(f'"p{i}": {{}}' for i in range(MOST)) + "}"
    )
    with pytest.raises(StudioError, match="forget some first"):
        presets.save("one more", {})
