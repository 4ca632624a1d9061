"""The command line: what it accepts, what it prints where, and how it ends."""

import argparse
import io
import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from studio import __version__
from studio.cli import main, progress
from studio.cli.exits import CANCELLING, ENOUGH
from studio.cli.merge import _size
from studio.cli.progress import Bar, JsonLines
from studio.merge.run import Progress
from tests.faults.merging import (
    environment,
    run_studio,
    start_studio,
    studio_command,
    write_recipe,
    write_sources,
)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in CANCELLING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe whose models are named relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    write_sources(Path("."), layers=2)
    return str(write_recipe(Path("recipe.yaml"), ["a", "b", "c"]))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_merge_prints_the_folder_on_stdout_and_talks_on_stderr(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    code, out, err = run(capsys, "merge", recipe, "--out", "result")
    assert (code, out) == (0, "result\n")
    assert "100 %" in err and "done in" in err and "MB/s" in err
    assert (Path("result") / "model.safetensors").exists()
    assert not Path("result.partial").exists()


def test_merge_with_json_prints_events_only(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    code, out, err = run(capsys, "merge", recipe, "--out", "result", "--json")
    events = lines(out)
    assert (code, err) == (0, "")
    assert [event["event"] for event in events[:-1]] == ["progress"] * (len(events) - 1)
    first, last = events[0], events[-2]
    assert set(first) == {"event", "phase", "done", "total", "resumed", "tensor", "seconds"}
    assert (first["phase"], first["done"], first["resumed"]) == ("merge", 0, 0)
    assert last["done"] == last["total"] == (Path("result") / "model.safetensors").stat().st_size
    assert events[-1]["event"] == "done" and events[-1]["path"] == "result"
    assert events[-1]["seconds"] >= last["seconds"]


def test_a_cancelled_merge_says_so_in_both_ways(
    capsys: pytest.CaptureFixture[str], recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("studio.merge.run.merge", interrupted)
    code, out, err = run(capsys, "merge", recipe, "--out", "result")
    assert (code, out) == (130, "") and "cancelled; the same command resumes" in err
    code, out, _ = run(capsys, "merge", recipe, "--out", "result", "--json")
    assert code == 130 and lines(out)[-1] == {"event": "cancelled"}
    monkeypatch.setattr("studio.merge.preflight.check", interrupted)
    code, out, err = run(capsys, "check", recipe, "--json")
    assert code == 130 and lines(out) == [{"event": "cancelled"}] and "cancelled" in err


def test_errors_go_to_stderr_and_as_an_event_to_stdout(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    Path("b/config.json").unlink()
    code, out, err = run(capsys, "merge", recipe, "--out", "result")
    assert (code, out) == (2, "") and err.startswith("error: b/config.json")
    code, out, err = run(capsys, "check", recipe, "--json")
    (event,) = lines(out)
    assert code == 2 and event["event"] == "error"
    assert event["message"] == event["error"] and f"error: {event['message']}\n" == err


def test_a_bug_is_not_dressed_as_bad_input(
    capsys: pytest.CaptureFixture[str], recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("studio.merge.preflight.check", broken)
    with pytest.raises(ZeroDivisionError):
        main(["check", recipe])


def test_check_tells_what_the_merge_will_do(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    code, out, err = run(capsys, "check", recipe)
    assert (code, err) == (0, "")
    for part in ("a: ", "bfloat16", "2 layers, 21 tensors", "in 1 file", "ready to merge"):
        assert part in out

    code, out, _ = run(capsys, "check", recipe, "--json", "--out", "result", "--shard-size", "20KB")
    (found,) = lines(out)
    assert code == 0 and not Path("result").exists() and not Path("result.partial").exists()
    assert set(found) >= {
        "warnings",
        "bytes_missing",
        "bytes_read",
        "bytes_written",
        "peak_memory",
        "seconds",
        "dtype",
        "sources",
        "tensors",
        "layers",
        "shards",
    }
    assert [source["model"] for source in found["sources"]] == ["a", "b", "c"]
    assert (found["layers"], found["tensors"], found["shards"]) == (2, 21, 3)
    assert found["dtype"] == "bfloat16" and found["warnings"] == []


def test_warnings_are_shown_before_a_merge(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    config = json.loads(Path("b/config.json").read_text())
    Path("b/config.json").write_text(json.dumps(config | {"rope_theta": 1e6}))
    assert run(capsys, "merge", recipe, "--out", "result")[0] == 2
    code, _, err = run(capsys, "merge", recipe, "--out", "result", "--allow", "rope_theta")
    assert code == 0 and err.startswith("note: rope_theta differs")


def test_preview_shows_every_row_as_table_and_json(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    code, out, err = run(capsys, "preview", recipe)
    assert (code, err) == (0, "")
    table = out.splitlines()
    assert [row.split("  ")[0] or row.strip().split("  ")[0] for row in table[1:6]] == [
        "embeddings",
        "layer 0",
        "layer 1",
        "norm",
        "head",
    ]
    for part in ("one angle", "two angle", "Result angle", "norm ratio", "°"):
        assert part in out
    assert any(line.startswith("Overall mix, in weights: ") for line in table)

    code, out, _ = run(capsys, "preview", recipe, "--json")
    (found,) = lines(out)
    assert found["sources"] == ["a", "b", "c"]
    assert found["rows"] == ["embeddings", "layer 0", "layer 1", "norm", "head"]
    for row in found["shares"]:
        assert sum(row) == pytest.approx(1, abs=1e-5) and len(row) == 3
    assert [stage["title"] for stage in found["stages"]] == ["one", "two", "Result"]
    assert found["stages"][0]["values"]["t"] == [0.25, 0.25, 0.5, 0.25, 0.25]
    assert all(0 < degrees < 90 for degrees in found["stages"][0]["degrees"])
    assert len(found["norm_ratio"]) == len(found["similarity"]) == 5
    assert not list(Path(".").glob("*.partial"))


def test_verify_accepts_what_was_merged_and_refuses_what_was_changed(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    run(capsys, "merge", recipe, "--out", "result")
    code, out, _ = run(capsys, "verify", "result")
    assert code == 0 and "model.safetensors" in out
    data = bytearray(Path("result/model.safetensors").read_bytes())
    data[-9] ^= 1
    Path("result/model.safetensors").write_bytes(data)
    code, _, err = run(capsys, "verify", "result")
    assert code == 2 and "model.safetensors" in err and "bytes have changed" in err
    assert run(capsys, "verify", "none")[0] == 2


@pytest.mark.parametrize(
    ("option", "value", "dtype"),
    [("--dtype", "float16", "F16"), ("--dtype", "float32", "F32")],
)
def test_options_reach_the_merge(
    capsys: pytest.CaptureFixture[str], recipe: str, option: str, value: str, dtype: str
) -> None:
    assert run(capsys, "merge", recipe, "--out", "result", option, value)[0] == 0
    with safe_open("result/model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {dtype}


def test_missing_tensors_can_come_from_the_base(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    write_sources(Path("short"), layers=2, without=("layers.1.mlp.up",))
    write_recipe(Path(recipe), ["a", "short/b", "c"])
    assert run(capsys, "check", recipe)[0] == 2
    code, out, _ = run(capsys, "check", recipe, "--missing", "base")
    assert code == 0 and "copied from a: model.layers.1.mlp.up_proj.weight" in out


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("5GB", 5_000_000_000),
        ("5 gb", 5_000_000_000),
        ("1.5GB", 1_500_000_000),
        ("500MB", 500_000_000),
        ("64MiB", 64 << 20),
        ("2GiB", 2 << 30),
        ("20kb", 20_000),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert _size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0GB", "-5GB", "5TBB", "GB", "1e9", "5GB 3", "٣GBx"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size; write it as 5GB"):
        _size(text)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "COMMAND"),
        (["destroy"], "invalid choice"),
        (["merge"], "RECIPE"),
        (["merge", "recipe.yaml"], "--out"),
        (["merge", "recipe.yaml", "--out", "x", "--shard-bytes", "3"], "unrecognized"),
        (["merge", "recipe.yaml", "--out", "x", "--frobnicate"], "--frobnicate"),
        (["merge", "recipe.yaml", "--out", "x", "--shard-size", "big"], "is not a size"),
        (["merge", "recipe.yaml", "--out", "x", "--dtype", "int8"], "int8"),
        (["merge", "recipe.yaml", "--out", "x", "--device", "tpu"], "tpu"),
        (["merge", "recipe.yaml", "--out", "x", "--missing", "guess"], "guess"),
        (["verify", "DIR", "--tethered"], "--tethered"),
        (["preview", "recipe.yaml", "extra"], "extra"),
        (["verify"], "DIR"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    told = capsys.readouterr()
    assert stop.value.code == 2 and told.out == ""
    assert part in told.err and "usage: python -m studio" in told.err


@pytest.mark.parametrize("command", [[], ["check"], ["merge"], ["preview"], ["verify"]])
def test_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0 and "usage: " in capsys.readouterr().out


def test_as_a_real_process(recipe: str) -> None:
    version = run_studio("--version")
    assert (version.returncode, version.stdout) == (0, f"{__version__}\n")
    assert run_studio("merge", recipe, "--nonsense").returncode == 2
    done = run_studio("merge", recipe, "--out", "result")
    assert (done.returncode, done.stdout) == (0, "result\n"), done.stderr
    again = run_studio("merge", recipe, "--out", "result")
    assert again.returncode == 2 and "result exists and is not an empty folder" in again.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(every: float = 0.1) -> list[Progress]:
    """A gigabyte in a hundred steps."""
    return [Progress(i * 10**7, 10**9, 0, "t", i * every) for i in range(101)]


def drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch, every: float) -> list[str]:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = Terminal()
    bar = Bar(stream)
    for step in steps(every):
        clock[0] = step.seconds
        bar.update(step)
    return stream.getvalue().split("\r")[1:]


def test_bar_on_a_terminal_shows_bytes_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = drawn_on_a_terminal(monkeypatch, every=0.5)
    assert len(drawn) == 101
    assert "░" * 28 in drawn[0] and "starting" in drawn[0]
    assert "█" * 14 + "░" * 14 in drawn[50]
    for part in (" 50 %", "500.0 MB of 1.00 GB", "20.0 MB/s", "25 s left"):
        assert part in drawn[50]
    assert "100 %" in drawn[-1] and "█" * 28 in drawn[-1]


def test_bar_is_drawn_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawn_on_a_terminal(monkeypatch, every=0.01)
    assert 5 <= len(drawn) <= 6 and "100 %" in drawn[-1]


def test_bar_elsewhere_prints_a_line_every_ten_percent() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    for step in steps():
        bar.update(step)
    percents = [int(line.split("%")[0]) for line in stream.getvalue().splitlines()]
    assert percents == list(range(0, 101, 10))


def test_download_elsewhere_is_told_every_ten_percent_and_the_merge_after_it() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    for done in range(0, 101):
        bar.download(done * 10**8, 10**10)
    bar.update(steps()[0])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 12 and lines[-1].startswith("  0 %")
    assert lines[1] == "downloaded 1.00 GB of 10.00 GB"


def test_download_on_a_terminal_is_left_to_the_client() -> None:
    stream = Terminal()
    Bar(stream).download(1, 2)
    assert stream.getvalue() == ""


def test_speed_counts_only_what_this_run_has_done() -> None:
    stream = io.StringIO()
    Bar(stream).update(Progress(9 * 10**9, 10**10, 8 * 10**9, "t", 2.0))
    assert "500.0 MB/s  2 s left" in stream.getvalue()


def test_json_lines_come_five_times_a_second_and_always_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = JsonLines()
    for step in steps():
        clock[0] = step.seconds
        shown.update(step)
    events = lines(capsys.readouterr().out)
    assert 40 < len(events) < 60
    assert events[-1]["done"] == events[-1]["total"] == 10**9


def test_preview_keeps_what_it_measured_and_a_merge_does_too(
    capsys: pytest.CaptureFixture[str],
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path / "merged"))
    assert run(capsys, "merge", recipe, "--out", "result")[0] == 0
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path / "measured"))
    _, measured, _ = run(capsys, "preview", recipe, "--json")
    kept = [
        sorted(file.name for file in (tmp_path / folder / "grams").iterdir())
        for folder in ("merged", "measured")
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 3

    def fail(*_: object) -> None:
        raise AssertionError("the sources are read again")

    monkeypatch.setattr("studio.merge.geometry.measure.measure", fail)
    for folder in ("merged", "measured"):
        monkeypatch.setenv("STUDIO_DATA", str(tmp_path / folder))
        for options in ((), ("--sample",)):
            assert run(capsys, "preview", recipe, "--json", *options) == (0, measured, "")


def test_preview_of_task_vectors_needs_the_base(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    _, out, _ = run(capsys, "preview", recipe, "--base", "a", "--json")
    (found,) = lines(out)
    assert (found["space"], found["base"]) == ("task vectors", "a")
    assert found["overall"][0] == 0
    code, out, _ = run(capsys, "preview", recipe, "--base", "a")
    assert code == 0 and "Overall mix, in task vectors (what changed from a): " in out
    code, _, err = run(capsys, "preview", recipe, "--base", "./nowhere")
    assert code == 2 and "nowhere" in err


def test_preview_from_a_sample_says_so(
    capsys: pytest.CaptureFixture[str],
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUDIO_DATA", str(tmp_path / "new"))
    _, out, _ = run(capsys, "preview", recipe, "--sample", "--json")
    (found,) = lines(out)
    assert (found["basis"], found["sampled"]) == ("estimated", 1.0)  # toys are read whole
    assert len(found["share_error"]) == len(found["rows"])
    _, out, _ = run(capsys, "preview", recipe, "--sample")
    assert out.splitlines()[-1].startswith("estimated from 100 % of the weights")
    assert not (tmp_path / "new").exists()


def test_tethered_preview_tells_progress_before_the_result(recipe: str) -> None:
    process = start_studio("preview", Path(recipe).absolute(), "--json", "--tethered")
    try:
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert [event.get("event") for event in events[:-1]] == ["progress"] * (len(events) - 1)
    assert len(events) > 1 and 0 < events[0]["done"] <= events[0]["total"]
    assert events[-1]["basis"] == "exact"


def test_a_reader_that_has_had_enough_ends_the_command_without_a_word(recipe: str) -> None:
    process = start_studio("preview", recipe)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == ENOUGH


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_the_caller_closed_is_not_missed(closed: str, recipe: str) -> None:
    for arguments in (("check", recipe), ("merge", recipe, "--out", "result")):
        command = f"{shlex.join(map(str, studio_command(*arguments)))} {closed}"
        done = subprocess.run(command, shell=True, env=environment(), timeout=100)
        assert done.returncode == 0, arguments
    assert run_studio("verify", "result").returncode == 0
