"""The journal: what it remembers, what it forgets on purpose, and whom it locks out."""

import errno
import json
import os
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.merge.journal import NAME, Journal, ShardRecord, TensorRecord, plan_of

TENSOR = TensorRecord([[1.0, 0.1], [0.1, 2.5e-320]], [0.1 + 0.2, 0.7])
RECORDS = [ShardRecord(f"shard-{i}", 10 * i, f"{i:016x}", {f"täns{i}": TENSOR}) for i in range(3)]


def written(folder: Path, plan: str = "plan") -> bytes:
    with Journal(folder, plan) as journal:
        for record in RECORDS:
            journal.add(record)
    return (folder / NAME).read_bytes()


def test_records_come_back_to_the_bit(tmp_path: Path) -> None:
    written(tmp_path)
    with Journal(tmp_path, "plan") as journal:
        assert journal.records == RECORDS
    assert plan_of(tmp_path / NAME) == "plan"


def test_makes_its_folder(tmp_path: Path) -> None:
    with Journal(tmp_path / "deep" / "folder", "plan") as journal:
        assert journal.records == []


def test_torn_anywhere_it_gives_the_whole_lines_before(tmp_path: Path) -> None:
    data = written(tmp_path)
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data)):
        (tmp_path / NAME).write_bytes(data[:cut])
        with Journal(tmp_path, "plan") as journal:
            count = sum(end <= cut for end in ends)
            assert journal.records == RECORDS[: max(count - 1, 0)]
            for record in RECORDS[len(journal.records) :]:
                journal.add(record)
        assert (tmp_path / NAME).read_bytes() == data, "goes on as if nothing had happened"


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 50,
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"file": 1}',
        b'{"tensors": 3}',
        b"{" * 9999,
    ],
)
@pytest.mark.parametrize("line", [0, 1, 3])
def test_a_damaged_line_ends_it(tmp_path: Path, garbage: bytes, line: int) -> None:
    lines = written(tmp_path).splitlines()
    lines[line] = garbage
    (tmp_path / NAME).write_bytes(b"\n".join(lines) + b"\n")
    with Journal(tmp_path, "plan") as journal:
        assert journal.records == RECORDS[: max(line - 1, 0)]


def test_another_plan_drops_everything(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "shard-1").write_text("stale")
    (tmp_path / "config.json").write_text("stale")
    with Journal(tmp_path, "other plan") as journal:
        assert journal.records == []
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert plan_of(tmp_path / NAME) == "other plan"


def test_a_folder_it_did_not_make_is_not_emptied(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "a file").write_text("x")
    with pytest.raises(StudioError, match="mine: no merge has made this folder"):
        Journal(tmp_path, "other plan").__enter__()
    assert (tmp_path / "a file").exists() and plan_of(tmp_path / NAME) == "plan"


def test_finished_counts_only_files_of_full_size(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "shard-1").write_bytes(b"x" * 10)
    (tmp_path / "shard-2").write_bytes(b"x" * 19)
    (tmp_path / "unknown").write_bytes(b"x" * 10)
    with Journal(tmp_path, "plan") as journal:
        wanted = ["shard-0", "shard-1", "shard-2", "unknown", "absent"]
        assert journal.finished(wanted) == {"shard-1": RECORDS[1]}


def test_the_second_is_locked_out_until_the_first_ends(tmp_path: Path) -> None:
    with Journal(tmp_path, "plan") as first:
        first.add(RECORDS[0])
        for plan in ("plan", "other plan"):
            with pytest.raises(StudioError, match="another merge is writing here"):
                Journal(tmp_path, plan).__enter__()
    with Journal(tmp_path, "plan") as again:
        assert again.records == RECORDS[:1]


def test_a_folder_moved_away_while_waiting_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a.partial"
    real_open = os.open

    def open_then_publish(path: Path, *rest: int) -> int:
        handle = real_open(path, *rest)
        folder.rename(tmp_path / "a")
        return handle

    folder.mkdir()
    monkeypatch.setattr("studio.merge.journal.os.open", open_then_publish)
    with pytest.raises(StudioError, match="another merge has just finished"):
        Journal(folder, "plan").__enter__()


def test_a_full_disk_is_told_and_costs_only_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    real_write, room = os.write, [25]

    def write(handle: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real_write(handle, data[: room[0]])
        room[0] -= count
        return count

    with Journal(tmp_path, "plan") as journal, monkeypatch.context() as patch:
        patch.setattr("studio.merge.journal.os.write", write)
        with pytest.raises(StudioError, match="No space left on device.*make room"):
            journal.add(ShardRecord("shard-3", 1, "0", {}))
    with Journal(tmp_path, "plan") as journal:
        assert journal.records == RECORDS


def test_a_place_where_no_folder_can_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudioError, match="cannot be made"):
        Journal(tmp_path / "file" / "x.partial", "plan").__enter__()


def test_lines_are_plain_json(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path).splitlines()]
    assert lines[0] == {"plan": "plan"}
    assert lines[1]["file"] == "shard-0" and lines[1]["tensors"]["täns0"]["weights"][1] == 0.7
