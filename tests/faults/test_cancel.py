"""Cancelling: Ctrl-C, SIGTERM, a closed tether; and two merges to one output."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from studio.merge.output import partial_folder
from tests.faults.merging import (
    contents,
    environment,
    finished_shards,
    run_studio,
    start_studio,
    studio_command,
)

OPTIONS = ("--shard-size", "1MB", "--json")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, large_recipe: Path) -> dict[str, str]:
    out = tmp_path_factory.mktemp("reference") / "out"
    run = run_studio("merge", large_recipe, "--out", out, *OPTIONS)
    assert run.returncode == 0, run.stderr
    return contents(out)


@contextmanager
def under_way(*arguments: str | Path) -> "Iterator[subprocess.Popen[str]]":
    """A merge that has begun and is stopped there until SIGCONT."""
    with start_studio("merge", *arguments) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["event"] == "progress"
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finish(process: "subprocess.Popen[str]") -> tuple[list[dict[str, Any]], str]:
    """Let it go on and end: its events and what it told."""
    process.send_signal(signal.SIGCONT)
    assert process.stdin and process.stdout and process.stderr
    events = [json.loads(line) for line in process.stdout]
    told = process.stderr.read()
    process.wait(timeout=60)
    return events, told


def interrupt(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)


def terminate(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)


def close_input(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize(
    ("cancel", "options"),
    [(interrupt, ()), (terminate, ()), (close_input, ("--tethered",))],
    ids=["SIGINT", "SIGTERM", "tether"],
)
def test_cancelling_is_clean_and_the_same_command_resumes(
    tmp_path: Path,
    large_recipe: Path,
    reference: dict[str, str],
    cancel: Callable[["subprocess.Popen[str]"], None],
    options: tuple[str, ...],
) -> None:
    out = tmp_path / "out"
    with under_way(large_recipe, "--out", out, *OPTIONS, *options) as process:
        cancel(process)
        events, told = finish(process)
    assert process.returncode == 130
    assert events[-1] == {"event": "cancelled"}
    assert all(event["event"] == "progress" for event in events[:-1])
    assert "Traceback" not in told and "Exception" not in told
    assert not out.exists() and partial_folder(out).is_dir()

    done = finished_shards(out)
    run = run_studio("merge", large_recipe, "--out", out, *OPTIONS)
    assert run.returncode == 0, run.stderr
    assert contents(out) == reference
    assert (json.loads(run.stdout.splitlines()[0])["resumed"] > 0) == (done > 0)


def test_an_open_tether_and_talk_on_it_do_not_cancel(
    tmp_path: Path, large_recipe: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    with under_way(large_recipe, "--out", out, *OPTIONS, "--tethered") as process:
        assert process.stdin is not None
        process.stdin.write("still here\n")
        process.stdin.flush()
        events, _ = finish(process)
    assert process.returncode == 0 and events[-1]["event"] == "done"
    assert contents(out) == reference


@pytest.mark.parametrize("work", ["merge", "check"])
def test_a_closed_tether_cancels_even_where_interrupts_are_ignored(
    tmp_path: Path, large_recipe: Path, work: str
) -> None:
    """As in the background jobs of a shell script."""
    command = studio_command(work, large_recipe, "--out", tmp_path / "out", "--tethered")
    run = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )
    assert run.returncode == 130, run.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_tether_a_closed_input_does_not_matter(tmp_path: Path, recipe: Path) -> None:
    assert run_studio("merge", recipe, "--out", tmp_path / "out").returncode == 0


def test_the_second_merge_to_an_output_is_refused(
    tmp_path: Path, large_recipe: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    with under_way(large_recipe, "--out", out, *OPTIONS) as first:
        second = run_studio("merge", large_recipe, "--out", out, *OPTIONS)
        assert second.returncode == 2
        assert "another merge is writing here" in second.stderr
        error = json.loads(second.stdout.splitlines()[-1])
        assert error["event"] == "error" and "another merge" in error["message"]
        finish(first)
    assert first.returncode == 0
    assert contents(out) == reference


def test_a_killed_merge_does_not_lock_the_next_one_out(
    tmp_path: Path, large_recipe: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    with under_way(large_recipe, "--out", out, *OPTIONS) as process:
        process.kill()
    assert run_studio("merge", large_recipe, "--out", out, *OPTIONS).returncode == 0
    assert contents(out) == reference


def test_a_cancelled_check_leaves_nothing(tmp_path: Path, recipe: Path) -> None:
    """SIGTERM while the process hangs on a recipe that never comes."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with start_studio("merge", pipe, "--out", tmp_path / "out", "--json") as process:
        with pipe.open("w") as writer:  # returns once the other end is open
            process.terminate()
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"event": "cancelled"}
            assert not writer.closed
    assert process.returncode == 130
    assert not (tmp_path / "out").exists() and not partial_folder(tmp_path / "out").exists()


def test_cancelling_twice_is_as_clean_as_once(
    tmp_path: Path, large_recipe: Path, reference: dict[str, str]
) -> None:
    out = tmp_path / "out"
    with under_way(large_recipe, "--out", out, *OPTIONS) as process:
        interrupt(process)
        terminate(process)
        events, told = finish(process)
    assert process.returncode == 130, told
    assert events[-1] == {"event": "cancelled"} and "Traceback" not in told
    assert run_studio("merge", large_recipe, "--out", out, *OPTIONS).returncode == 0
    assert contents(out) == reference
