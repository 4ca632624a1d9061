"""Models from the Hub: the local cache first, configs before weights, and clear errors."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.checkpoints import write_checkpoint
from tests.faults.hub_double import Hub, fill_cache, serve
from tests.faults.merging import contents, environment, run_studio, write_recipe, write_sources

NAMES = ["maker/Mythos-70b", "xwin/Xwin-70B-V0.1", "nous/Hermes-70b"]
SMALL_MODEL = "xwin/Xwin-7B-V0.1"


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with three large models and a small one of another shape."""
    folders = dict(zip(NAMES, write_sources(tmp_path / "remote", layers=3), strict=True))
    small = {"layers": 2, "hidden_size": 16, "seed": 9}
    folders[SMALL_MODEL] = write_checkpoint(tmp_path / "remote" / "small", **small)
    with serve(folders) as hub:
        yield hub


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", NAMES)


def offline(home: Path) -> dict[str, str]:
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def is_weights(file: str) -> bool:
    return file.endswith((".safetensors", ".bin"))


def test_the_local_cache_is_enough(tmp_path: Path, remote: Hub, recipe: Path) -> None:
    for name in NAMES:
        fill_cache(tmp_path / "home", name, remote.repositories[name])
    run = run_studio("merge", recipe, "--out", tmp_path / "out", **offline(tmp_path / "home"))
    assert run.returncode == 0, run.stderr
    local = write_recipe(tmp_path / "local.yaml", [remote.repositories[name] for name in NAMES])
    assert run_studio("merge", local, "--out", tmp_path / "local").returncode == 0
    weights = "model.safetensors"
    assert contents(tmp_path / "out")[weights] == contents(tmp_path / "local")[weights]
    report = (tmp_path / "out" / "merge-report.json").read_text()
    assert NAMES[0] in report and str(tmp_path / "home") not in report
    assert remote.requests == []


def test_a_folder_wins_over_the_hub(
    tmp_path: Path, remote: Hub, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        shutil.copytree(remote.repositories[name], tmp_path / name)
    run = run_studio("check", recipe, "--json", **remote.environment(tmp_path / "home"))
    assert run.returncode == 0, run.stderr
    assert [source["path"] for source in json.loads(run.stdout)["sources"]] == NAMES
    assert remote.requests == []


def test_downloads_configs_of_all_before_weights_of_any(
    tmp_path: Path, remote: Hub, recipe: Path
) -> None:
    home = tmp_path / "home"
    run = run_studio("merge", recipe, "--out", tmp_path / "out", **remote.environment(home))
    assert run.returncode == 0, run.stderr
    files = remote.downloads()
    first = next(number for number, file in enumerate(files) if is_weights(file))
    assert {f"{name}/config.json" for name in NAMES} <= set(files[:first])
    assert sorted(file for file in files if is_weights(file)) == sorted(
        f"{name}/model.safetensors" for name in NAMES
    )
    assert len(files) == len(set(files)), "nothing twice"

    remote.requests.clear()
    again = run_studio("check", recipe, **offline(home))
    assert again.returncode == 0, again.stderr
    assert remote.requests == []


@pytest.mark.parametrize("command", ["check", "merge", "preview"])
def test_the_7b_trap_is_found_without_fetching_any_weights(
    tmp_path: Path, remote: Hub, command: str
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", [NAMES[0], SMALL_MODEL, NAMES[2]])
    out = () if command == "preview" else ("--out", tmp_path / "out")
    run = run_studio(command, recipe, *out, **remote.environment(tmp_path / "home"))
    assert run.returncode == 2
    for part in (
        f"{SMALL_MODEL} has hidden_size 16, but {NAMES[0]}, {NAMES[2]} have 32",
        "probably xwin/Xwin-70B-V0.1 is meant",
    ):
        assert part in run.stderr
    assert len(remote.downloads()) == 9, "config, tokenizer and its settings of each"
    assert not any(is_weights(file) for file in remote.downloads())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("problem", ["numerics", "vocabulary", "tokenizer", "output", "template"])
def test_nothing_large_is_fetched_for_a_merge_that_cannot_be(
    tmp_path: Path, remote: Hub, recipe: Path, problem: str
) -> None:
    folder = remote.repositories[NAMES[1]]
    if problem in ("numerics", "vocabulary"):
        config = json.loads((folder / "config.json").read_text())
        change = {"rms_norm_eps": 1e-3} if problem == "numerics" else {"vocab_size": 97}
        (folder / "config.json").write_text(json.dumps(config | change))
    elif problem == "tokenizer":
        text = (folder / "tokenizer.json").read_text()
        (folder / "tokenizer.json").write_text(text.replace('"w5": 5, "w6": 6', '"w6": 5, "w5": 6'))
    elif problem == "output":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("x")
    else:
        recipe.write_text(recipe.read_text() + "chat_template: vicunia\n")
    run = run_studio(
        "merge", recipe, "--out", tmp_path / "out", **remote.environment(tmp_path / "home")
    )
    assert run.returncode == 2 and "error: " in run.stderr
    assert remote.downloads() and not any(is_weights(file) for file in remote.downloads())


def test_of_both_formats_only_safetensors_are_fetched(
    tmp_path: Path, remote: Hub, recipe: Path
) -> None:
    (remote.repositories[NAMES[0]] / "pytorch_model.bin").write_bytes(b"x")
    (remote.repositories[NAMES[0]] / "tf_model.h5").write_bytes(b"x")
    shutil.rmtree(remote.repositories[NAMES[1]])
    write_checkpoint(remote.repositories[NAMES[1]], seed=2, layers=3, format="bin")
    run = run_studio(
        "merge", recipe, "--out", tmp_path / "out", **remote.environment(tmp_path / "home")
    )
    assert run.returncode == 0, run.stderr
    files = remote.downloads()
    assert f"{NAMES[0]}/model.safetensors" in files and f"{NAMES[1]}/pytorch_model.bin" in files
    assert f"{NAMES[0]}/pytorch_model.bin" not in files and f"{NAMES[0]}/tf_model.h5" not in files


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nobody/nothing", "nobody/nothing: not a folder here, not in the local Hub cache"),
        ("not a hub id", "neither a folder here nor a Hub id"),
        ("./missing/folder", "there is no such folder; check the path"),
        ("/missing/folder", "there is no such folder; check the path"),
        ("a/b/c", "there is no such folder; check the path"),
    ],
)
@pytest.mark.parametrize("connected", [True, False])
def test_a_model_that_is_nowhere_is_a_clear_error(
    tmp_path: Path, remote: Hub, name: str, part: str, connected: bool
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", [name, NAMES[1], NAMES[2]])
    home = tmp_path / "home"
    run = run_studio("check", recipe, **(remote.environment(home) if connected else offline(home)))
    assert run.returncode == 2 and run.stdout == ""
    assert part in run.stderr and "Traceback" not in run.stderr
    assert not any(is_weights(file) for file in remote.downloads())


def test_all_models_that_are_nowhere_are_listed(tmp_path: Path, recipe: Path) -> None:
    run = run_studio("check", recipe, **offline(tmp_path / "home"))
    assert run.returncode == 2
    assert all(f"- {name}: not a folder here" in run.stderr for name in NAMES)


@pytest.mark.parametrize("format", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_check_reads_headers_and_a_merge_then_downloads_with_progress(
    tmp_path: Path, remote: Hub, recipe: Path, format: str, shards: int
) -> None:
    folders = [remote.repositories[name] for name in NAMES]
    shutil.rmtree(folders[2])
    write_checkpoint(folders[2], seed=3, layers=3, format=format, shards=shards)
    environment = remote.environment(tmp_path / "home")
    run = run_studio("check", recipe, "--json", **environment)
    assert run.returncode == 0, run.stderr
    assert not any(is_weights(file) for file in remote.downloads())
    weights = [file for folder in folders for file in folder.iterdir() if is_weights(file.name)]
    total = sum(file.stat().st_size for file in weights)
    assert len(remote.ranges) == len(weights) == 2 + shards
    assert json.loads(run.stdout)["bytes_missing"] == total

    run = run_studio("merge", recipe, "--out", tmp_path / "out", "--json", **environment)
    assert run.returncode == 0, run.stderr
    assert sum(is_weights(file) for file in remote.downloads()) == len(weights)
    events = [json.loads(line) for line in run.stdout.splitlines()]
    loading = [event for event in events if event.get("phase") == "download"]
    assert loading and loading[-1]["done"] == loading[-1]["total"] == total
    assert events[-1]["event"] == "done"
    run = run_studio("check", recipe, "--json", **offline(tmp_path / "home"))
    assert json.loads(run.stdout)["bytes_missing"] == 0


OPEN = """
import json, sys
from studio.weights.remote import open_model
tensors = open_model(sys.argv[1]).tensors.values()
print(json.dumps([[t.name, t.dtype, t.shape, t.file.name, t.nbytes] for t in tensors]))
"""


def opened(model: str | Path, **changes: str) -> list[list[object]]:
    """The tensors of a model as a process opens it."""
    run = subprocess.run(
        [sys.executable, "-c", OPEN, str(model)],
        capture_output=True,
        text=True,
        env=environment(**changes),
    )
    assert run.returncode == 0, run.stderr
    found: list[list[object]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("writer", ["today's", "that of 2023"])
@pytest.mark.parametrize("count", [3, 1500])
def test_of_a_bin_file_only_what_tells_of_its_tensors_is_fetched(
    tmp_path: Path, remote: Hub, writer: str, count: int
) -> None:
    """Few tensors, and so many that neither pickle nor directory fit into the first requests."""
    extra = {f"model.{'x' * 100}.{number}.scale": torch.ones(999) for number in range(count)}
    folder = write_checkpoint(tmp_path / "wide", layers=1, format="bin", vocab_size=9999)
    path = folder / "pytorch_model.bin"
    torch.save(torch.load(path) | extra, path)
    if writer != "today's":
        write_without(path, ".format_version", ".storage_alignment")
    remote.repositories[NAMES[0]] = folder
    assert opened(NAMES[0], **remote.environment(tmp_path / "home")) == opened(folder)
    assert remote.downloads() and not any(is_weights(file) for file in remote.downloads())
    given = sum(size for _, size in remote.ranges)
    assert given == 200_000 if count == 3 else given < path.stat().st_size / 4


def write_without(path: Path, *names: str) -> None:
    """Leave records out of a .bin file, as older versions of torch do."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            if not name.endswith(names):
                archive.writestr(name, data)


class Code:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 + 1",)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def legacy(path: Path) -> None:
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)


def spoilt(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b"embed_tokens")
    path.write_bytes(data[:at] + b"X" + data[at + 1 :])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "pytorch_model.bin: cut short or damaged (BadZipFile"),
        (spoilt, 'pytorch_model.bin: cut short or damaged (BadZipFile: "Bad CRC-32'),
        (legacy, "pytorch_model.bin: in the format before torch 1.6; convert the model"),
        (lambda path: torch.save({"x": Code()}, path), "it asks to run 'eval'"),
        (lambda path: path.write_text("<html>"), "pytorch_model.bin: not a .bin file"),
        (lambda path: path.write_text(""), "check the name, your connection"),
    ],
)
def test_a_bin_file_that_cannot_be_read_is_a_clear_error_without_its_download(
    tmp_path: Path, remote: Hub, recipe: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = remote.repositories[NAMES[1]]
    shutil.rmtree(folder)
    write_checkpoint(folder, seed=2, layers=3, format="bin")
    spoil(folder / "pytorch_model.bin")
    run = run_studio("check", recipe, **remote.environment(tmp_path / "home"))
    assert run.returncode == 2
    assert message in run.stderr and NAMES[1] in run.stderr and "Traceback" not in run.stderr
    assert not any(is_weights(file) for file in remote.downloads())


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_server_that_gives_no_parts_is_a_clear_error_and_not_a_download(
    tmp_path: Path, remote: Hub, recipe: Path, file: str
) -> None:
    folder = remote.repositories[NAMES[0]]
    (folder / "model.safetensors").unlink()
    (folder / file).touch()
    os.truncate(folder / file, 64 << 20)
    remote.whole.add(file)
    run = run_studio("check", recipe, **remote.environment(tmp_path / "home"))
    assert run.returncode == 2
    assert f"{NAMES[0]}: {file} is not given in parts" in run.stderr
    assert f"hf download {NAMES[0]}" in run.stderr
    assert remote.sent < 32 << 20


def test_weights_that_the_hub_lacks_are_a_clear_error(
    tmp_path: Path, remote: Hub, recipe: Path
) -> None:
    (remote.repositories[NAMES[0]] / "model.safetensors").unlink()
    shutil.rmtree(remote.repositories[NAMES[1]])
    write_checkpoint(remote.repositories[NAMES[1]], seed=2, layers=3, shards=3)
    (remote.repositories[NAMES[1]] / "model-00002-of-00003.safetensors").unlink()
    run = run_studio("check", recipe, **remote.environment(tmp_path / "home"))
    assert run.returncode == 2
    assert f"- {NAMES[0]}: the Hub repository has no safetensors or .bin weights" in run.stderr
    assert f"- {NAMES[1]}: 1 of 3 files of weights are missing: model-00002-of-" in run.stderr


INTERRUPTED = """
import sys
from studio.weights import hub

def stop(count):
    if count > 1_000_000:
        raise KeyboardInterrupt

try:
    hub.fetch(sys.argv[1], ["model.safetensors"], stop)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupted_download_ends_at_once_and_leaves_nothing(
    tmp_path: Path, remote: Hub
) -> None:
    os.truncate(remote.repositories[NAMES[0]] / "model.safetensors", 64 << 20)
    remote.slow.add("model.safetensors")
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, NAMES[0]],
        capture_output=True,
        text=True,
        env=environment(**remote.environment(tmp_path / "home")),
    )
    assert (run.returncode, run.stdout) == (0, "interrupted\n"), run.stderr
    assert run.stderr == "", "no bars where there is no terminal"
    assert remote.sent < 50 << 20
    (blobs,) = (tmp_path / "home").glob("hub/models--*/blobs")
    assert sum(file.stat().st_size for file in blobs.iterdir()) < 1_000_000


def test_the_client_is_told_to_be_quiet_before_it_is_imported_and_leaves_no_thread(
    tmp_path: Path, remote: Hub
) -> None:
    code = (
        "from studio.weights import hub; hub.folder_here('a/b')\n"
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)\n"
        "import sys, threading; hub.small_files(sys.argv[1]); print(threading.active_count())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, NAMES[0]],
        capture_output=True,
        text=True,
        env=environment(**remote.environment(tmp_path / "home")),
    )
    assert run.stdout == "True\n1\n", run.stderr


def test_a_header_longer_than_the_first_part_is_read_whole(tmp_path: Path, remote: Hub) -> None:
    extra = {f"model.{'x' * 200}.{number}.scale": torch.ones(1) for number in range(400)}
    folders = write_sources(tmp_path / "wide", layers=2, extra=extra)
    remote.repositories.update(zip(NAMES, folders, strict=True))
    recipe = write_recipe(tmp_path / "recipe.yaml", NAMES)
    run = run_studio("check", recipe, "--json", **remote.environment(tmp_path / "home"))
    assert run.returncode == 0, run.stderr
    assert [count > 100_000 for _, count in remote.ranges] == [False, True] * 3
    assert json.loads(run.stdout)["tensors"] > 400


def test_a_damaged_file_on_the_hub_is_found_by_its_header_and_named(
    tmp_path: Path, remote: Hub, recipe: Path
) -> None:
    file = remote.repositories[NAMES[1]] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    run = run_studio("check", recipe, **remote.environment(tmp_path / "home"))
    assert run.returncode == 2
    assert f"{NAMES[1]}/model.safetensors: the tensors end at byte" in run.stderr
    assert not any(is_weights(file) for file in remote.downloads())


@pytest.mark.parametrize("how", ["refuse", "cut"])
def test_a_download_that_fails_is_a_clear_error_and_goes_on_later(
    tmp_path: Path, remote: Hub, recipe: Path, how: str
) -> None:
    setattr(remote, how, {"model.safetensors"})
    environment = remote.environment(tmp_path / "home")
    run = run_studio("check", recipe, **environment)
    assert run.returncode == 2, run.stderr[-2000:]
    assert NAMES[0] in run.stderr and "check the name, your connection" in run.stderr
    setattr(remote, how, set())
    assert run_studio("check", recipe, **environment).returncode == 0


@pytest.mark.parametrize("proxy", [{}, {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}])
def test_no_connection_is_a_clear_error(
    tmp_path: Path, remote: Hub, recipe: Path, proxy: dict[str, str]
) -> None:
    nobody = remote.environment(tmp_path / "home") | {"HF_ENDPOINT": "http://127.0.0.1:9"} | proxy
    run = run_studio("check", recipe, **nobody)
    assert run.returncode == 2, run.stderr[-2000:]
    assert "check the name, your connection" in run.stderr


def test_a_revision_can_be_named(tmp_path: Path, remote: Hub) -> None:
    names = [f"{NAMES[0]}@main", *NAMES[1:]]
    recipe = write_recipe(tmp_path / "recipe.yaml", names)
    run = run_studio("check", recipe, **remote.environment(tmp_path / "home"))
    assert run.returncode == 0, run.stderr
    other = write_recipe(tmp_path / "recipe.yaml", [f"{NAMES[0]}@v2", *NAMES[1:]])
    run = run_studio("check", other, **remote.environment(tmp_path / "home"))
    assert run.returncode == 2 and f"{NAMES[0]}@v2" in run.stderr


def test_the_page_finds_models_in_the_local_cache_and_fetches_none(
    tmp_path: Path, remote: Hub
) -> None:
    for name in NAMES[:2]:
        fill_cache(tmp_path / "home", name, remote.repositories[name])
    snapshots = tmp_path / "home" / "hub"
    (weights,) = snapshots.glob("models--xwin*/snapshots/*/model.safetensors")
    weights.unlink()
    code = (
        "import sys; from studio.merge.preflight import folder_here\n"
        "print([folder_here(model) for model in sys.argv[1:]])"
    )
    names = [*NAMES, "no such model", "./nowhere", str(remote.repositories[NAMES[2]])]
    run = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        env=environment(**remote.environment(tmp_path / "home")),
    )
    assert run.returncode == 0, run.stderr
    (first,) = snapshots.glob("models--maker*/snapshots/*")
    assert run.stdout.strip() == str([first, None, None, None, None, remote.repositories[NAMES[2]]])
    assert remote.requests == []
