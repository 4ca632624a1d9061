"""The owner's saved recipes: files that stay whole, and names that stay in their folder."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.merge.recipe import Recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.ui.merge import library as module
from studio.ui.merge.library import Library
from studio.ui.merge.presets import presets

DEMO = presets()["demo"].recipe


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "recipes")


def renamed(name: str) -> Recipe:
    first, second, last = DEMO.stages
    return Recipe((replace(first, name=name), second, last))


def test_saved_recipe_comes_back_with_its_note(library: Library) -> None:
    library.save("first try", DEMO, "warm,\nbut short: t > 0.5?", replace=False)
    assert library.open("first try") == DEMO
    (entry,) = library.entries()
    assert (entry.name, entry.note) == ("first try", "warm,\nbut short: t > 0.5?")


def test_file_is_a_recipe_for_anyone(library: Library, tmp_path: Path) -> None:
    library.save("plain", DEMO, "---\nmerge_method: x\r\u2028name: y", replace=False)
    text = (tmp_path / "recipes" / "plain.yaml").read_text()
    assert load_recipe(text) == DEMO
    assert text.startswith("# ---\n# merge_method: x  name: y\nname: component-1\n")


def test_note_may_be_missing(library: Library, tmp_path: Path) -> None:
    library.save("bare", DEMO, None, replace=False)
    assert (tmp_path / "recipes" / "bare.yaml").read_text().startswith("name: component-1")
    assert library.entries()[0].note == ""


def test_taken_name_is_replaced_only_when_told(library: Library) -> None:
    library.save("one", DEMO, "old", replace=False)
    with pytest.raises(FileExistsError):
        library.save("one", DEMO, "new", replace=False)
    assert library.entries()[0].note == "old"
    library.save(" one ", DEMO, "new", replace=True)
    assert [entry.note for entry in library.entries()] == ["new"]


def test_failed_save_leaves_the_old_one(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library.save("one", DEMO, "old", replace=False)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudioError, match="cannot be written .No space left on device"):
        library.save("one", DEMO, "new", replace=True)
    assert library.entries()[0].note == "old"


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "../up", "a/b", "a\\b", "a\0b", ".x", "x.", "é", "a" * 81, None, 7, ["a"]],
)
def test_name_cannot_lead_elsewhere(library: Library, name: object, tmp_path: Path) -> None:
    for act in (
        lambda: library.save(name, DEMO, "", replace=True),
        lambda: library.open(name),
        lambda: library.delete(name),
    ):
        with pytest.raises(StudioError, match="cannot name a recipe"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_deleted_recipe_is_gone(library: Library) -> None:
    library.save("one", DEMO, "", replace=False)
    library.delete("one")
    library.delete("one")
    assert library.entries() == []
    with pytest.raises(StudioError, match='no recipe "one"'):
        library.open("one")


def test_newest_comes_first(library: Library) -> None:
    for age, name in ((50, "old"), (10, "new"), (30, "middle")):
        library.save(name, DEMO, "", replace=False)
        os.utime(library.folder / f"{name}.yaml", (1e9 - age, 1e9 - age))
    assert [entry.name for entry in library.entries()] == ["new", "middle", "old"]


def test_long_notes_and_full_libraries_are_refused(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StudioError, match="at most 2000 characters"):
        library.save("one", DEMO, "x" * 2001, replace=False)
    monkeypatch.setattr(module, "MOST_RECIPES", 1)
    library.save("one", DEMO, "", replace=False)
    with pytest.raises(StudioError, match="the library is full"):
        library.save("two", DEMO, "", replace=False)
    library.save("one", DEMO, "again", replace=True)


def test_broken_file_is_told_with_its_place(library: Library) -> None:
    library.folder.mkdir(parents=True)
    (library.folder / "odd.yaml").write_text("# by hand\nmerge_method: tise\n")
    assert library.entries()[0].note == "by hand"
    with pytest.raises(StudioError, match=r"odd\.yaml, line 2"):
        library.open("odd")


def test_a_file_that_cannot_be_read_is_listed_with_its_problem(library: Library) -> None:
    library.save("good", DEMO, "fine", replace=False)
    (library.folder / "folder.yaml").mkdir()
    (library.folder / "huge.yaml").write_text("#" * (module.LARGEST_FILE + 1))
    found = {entry.name: entry for entry in library.entries()}
    assert (found["good"].note, found["good"].problem) == ("fine", "")
    assert "folder.yaml: cannot be read (Is a directory)" in found["folder"].problem
    assert "too large for a recipe" in found["huge"].problem
    library.delete("huge")
    with pytest.raises(StudioError, match=r"folder\.yaml: cannot be deleted"):
        library.delete("folder")


@pytest.mark.parametrize("step", ["stat", "open"])
def test_a_recipe_deleted_while_the_list_is_made_is_left_out(
    library: Library, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for name in ("stays", "goes"):
        library.save(name, DEMO, "", replace=False)
    plain = getattr(Path, step)

    def deleted_before(path: Path, *arguments: object, **more: object) -> object:
        if path.stem == "goes":
            path.unlink(missing_ok=True)
        return plain(path, *arguments, **more)

    monkeypatch.setattr(Path, step, deleted_before)
    assert [entry.name for entry in library.entries()] == ["stays"]
