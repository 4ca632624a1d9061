import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.ui.access import answers
from studio.ui.background import Job
from studio.ui.merge.jobs import MergeJobs, checked_name
from tests.checkpoints import write_checkpoint, write_tokenizer

STAND_IN = (sys.executable, str(Path(__file__).parents[1] / "stand_in.py"))
ROOT = Path(__file__).parents[3]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MergeJobs]:
    monkeypatch.setenv("STUDIO_OWNER_TOKEN", "the merge must not see this")
    jobs = MergeJobs(tmp_path / "merges", STAND_IN)
    yield jobs
    jobs.close(patience=5)


def wait(jobs: MergeJobs, until: Callable[[Job], bool], seconds: float = 20) -> Job:
    end = time.monotonic() + seconds
    while not until(job := jobs.snapshot()):
        assert time.monotonic() < end, job
        time.sleep(0.02)
    return job


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} still runs"
        time.sleep(0.05)


def pid_of(jobs_folder: Path, name: str) -> int:
    file = jobs_folder / f"{name}.pid"
    end = time.monotonic() + 15
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return int(file.read_text())


def test_merge_reports_progress_and_ends_with_its_folder(jobs: MergeJobs) -> None:
    assert jobs.snapshot().state == "idle"
    started = jobs.start("a: recipe", "mine")
    assert (started.state, started.number, started.name) == ("running", 1, "mine")
    done = wait(jobs, lambda job: not job.is_live)
    assert (done.state, done.done, done.seconds, done.error) == ("done", 1_000_000, 0.5, "")
    assert (jobs.folder / "mine").is_dir()
    assert (jobs.folder / ".recipes/mine.yaml").read_text() == "a: recipe"
    assert done.left is None


def test_merge_tells_its_speed_and_the_time_left(jobs: MergeJobs) -> None:
    jobs.start("r", "slow")
    moving = wait(jobs, lambda job: job.done > 0 and bool(job.speed))
    assert moving.total == 1_000_000 and moving.item.startswith("t") and moving.speed
    assert moving.left == pytest.approx((1_000_000 - moving.done) / moving.speed)


def test_second_merge_is_refused_while_one_runs_and_allowed_after(jobs: MergeJobs) -> None:
    jobs.start("r", "slow")
    with pytest.raises(StudioError, match='"slow" is being merged'):
        jobs.start("r", "other")
    jobs.cancel()
    wait(jobs, lambda job: not job.is_live)
    assert jobs.start("r", "other").number == 2


def test_cancel_ends_the_process_and_keeps_the_studio_usable(jobs: MergeJobs) -> None:
    jobs.start("r", "slow")
    pid = pid_of(jobs.folder, "slow")
    wait(jobs, lambda job: job.done > 0)
    assert jobs.cancel().state == "cancelling"
    assert jobs.cancel().state == "cancelling"  # twice does no harm
    job = wait(jobs, lambda job: not job.is_live)
    assert (job.state, job.error) == ("cancelled", "")
    assert not is_alive(pid)


def test_cancel_without_a_merge_changes_nothing(jobs: MergeJobs) -> None:
    assert jobs.cancel() == Job()


def test_crash_is_told_with_its_last_words(jobs: MergeJobs) -> None:
    jobs.start("r", "crash")
    job = wait(jobs, lambda job: not job.is_live)
    assert job.state == "failed" and "code 1" in job.error
    assert job.talk == ("Traceback: the disk is on fire",)
    assert not (jobs.folder / "crash").exists()


def test_refused_recipe_is_told_as_the_merge_said_it(jobs: MergeJobs) -> None:
    jobs.start("r", "bad")
    job = wait(jobs, lambda job: not job.is_live)
    assert (job.state, job.error) == ("failed", "demo/models/x: not a folder")


def test_merge_killed_from_outside_is_told(jobs: MergeJobs) -> None:
    jobs.start("r", "slow")
    os.kill(pid_of(jobs.folder, "slow"), signal.SIGKILL)
    job = wait(jobs, lambda job: not job.is_live)
    assert job.state == "failed" and "memory" in job.error


def test_close_stops_the_merge_and_refuses_new_ones(jobs: MergeJobs) -> None:
    jobs.start("r", "slow")
    pid = pid_of(jobs.folder, "slow")
    jobs.close(patience=10)
    assert not is_alive(pid) and jobs.snapshot().state == "cancelled"
    with pytest.raises(StudioError, match="stopping"):
        jobs.start("r", "again")


def test_close_kills_a_merge_that_does_not_listen(jobs: MergeJobs) -> None:
    jobs.start("r", "stubborn")
    pid = pid_of(jobs.folder, "stubborn")
    wait(jobs, lambda job: job.done > 0)
    jobs.close(patience=0.5)
    assert not is_alive(pid)


@pytest.mark.parametrize(("work", "name"), [("start", "slow"), ("check", "doubtful")])
def test_work_ends_when_the_studio_is_killed(tmp_path: Path, work: str, name: str) -> None:
    program = (
        "import sys, time; from pathlib import Path; from studio.ui.merge.jobs import MergeJobs\n"
        f"MergeJobs(Path({str(tmp_path)!r}), {STAND_IN!r}).{work}('r', {name!r}); time.sleep(60)"
    )
    studio = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        pid = pid_of(tmp_path, name)
        assert is_alive(pid)
    finally:
        studio.kill()
        studio.wait()
    wait_until_dead(pid)


def test_taken_name_is_refused_before_anything_is_written(jobs: MergeJobs) -> None:
    (jobs.folder / "mine").mkdir(parents=True)
    with pytest.raises(StudioError, match='"mine" exists; choose another name'):
        jobs.start("r", "mine")
    assert [path.name for path in jobs.folder.iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["a", "demo-merge.v2", "_x", "-x", "A" * 80])
def test_name_is_accepted(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "ä", "a\n", "A" * 81, "a.",
     "x.partial", None, 3, ["a"], "a\0", "/etc"],
)  # fmt: skip
def test_name_is_refused(name: object) -> None:
    with pytest.raises(StudioError, match="cannot name a result"):
        checked_name(name)


def test_check_gives_what_the_command_says(jobs: MergeJobs) -> None:
    assert jobs.check("r", "mine")["warnings"] == ["mind the step"]
    with pytest.raises(StudioError, match="2 problems:\n- one\n- another"):
        jobs.check("r", "bad")
    assert list((jobs.folder / ".recipes").iterdir()) == []


def test_close_ends_a_check_and_refuses_another(jobs: MergeJobs) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(jobs.check, "r", "doubtful")
        pid = pid_of(jobs.folder, "doubtful")
        jobs.close(patience=5)
        with pytest.raises(StudioError, match="the studio is stopping"):
            asked.result(20)
    assert not is_alive(pid)
    with pytest.raises(StudioError, match="the studio is stopping"):
        jobs.check("r", "mine")
    assert list((jobs.folder / ".recipes").iterdir()) == []


def test_check_of_ids_with_other_meanings_gives_the_page_the_vocabularies(tmp_path: Path) -> None:
    """The rows are as many: only the ids differ."""
    words = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(3, 30))]
    for name, order in (("a", words), ("b", [*words[:3], *words[:2:-1]])):
        write_tokenizer(write_checkpoint(tmp_path / name, layers=2, vocab_size=30), order)
    recipe = (
        f"merge_method: slerp\nbase_model: {tmp_path}/a\nparameters: {{t: 0.4}}\n"
        f"models: [{{model: {tmp_path}/a}}, {{model: {tmp_path}/b}}]\n"
    )

    def check_merge(request: Any) -> Any:
        return MergeJobs(tmp_path / "merges").check(recipe, request["name"])

    told = json.loads(answers(check_merge)({"name": "mine"}).body)
    assert "26 ids different meanings" in told["error"]
    assert [(e["rows"], e["moved"]) for e in told["vocabularies"]] == [(30, 0), (30, 26)]


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    jobs = MergeJobs(tmp_path / "file", STAND_IN)
    with pytest.raises(StudioError, match=r"cannot be written \(Not a directory\)"):
        jobs.start("r", "mine")
    assert jobs.snapshot().state == "idle"
