"""The bench on tiny inputs: what it makes, reads, counts and concludes. Nothing is timed."""

import errno
import json
import mmap
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from bench import __main__ as program
from bench import (
    agreement,
    caches,
    contest,
    contestants,
    floor,
    measure,
    models,
    report,
    shapes,
    tuning,
)
from bench.contest import Results
from bench.contestants import ENGINE, FLOOR, MERGEKIT, FloorWay
from bench.errors import BenchError
from bench.measure import Run

SMALL = shapes.Shape(hidden=64, inter=160, layers=2, heads=4, kv_heads=2, vocab=500)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("models") / name for name in ("one", "two", "three")]
    models.make_models(SMALL, folders)
    return folders


# --- the models ---


def test_llama_1b_has_the_parameters_of_a_tiny_llama() -> None:
    assert shapes.LLAMA_1B.parameters == 1_100_048_384
    assert shapes.LLAMA_1B.nbytes == 2 * 1_100_048_384


def test_slice_has_the_layer_shapes_of_a_70b_llama() -> None:
    sizes = dict(shapes.LLAMA_70B_SLICE.tensors())
    assert sizes["model.layers.0.self_attn.k_proj.weight"] == (1024, 8192)
    assert sizes["model.layers.0.mlp.down_proj.weight"] == (8192, 28672)
    assert len(sizes) == 9 + 3


def test_models_are_read_by_the_safetensors_library(made: list[Path]) -> None:
    for folder in made:
        tensors = load_file(folder / "model.safetensors")
        assert {name: tuple(t.shape) for name, t in tensors.items()} == dict(SMALL.tensors())
        assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
        assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 2


def test_models_differ_by_about_a_tenth_in_every_matrix(made: list[Path]) -> None:
    one, two = (load_file(folder / "model.safetensors") for folder in made[:2])
    for name, tensor in one.items():
        x, y = tensor.double(), two[name].double()
        assert torch.isfinite(x).all()
        if x.ndim == 2:
            assert 0.08 < ((x - y).norm() / x.norm()).item() < 0.12, name
            assert x.std().item() == pytest.approx(0.02, rel=0.05)
        else:
            assert x.mean().item() == pytest.approx(1.0, abs=0.02)


def test_models_hold_no_subnormal_value(made: list[Path]) -> None:
    for tensor in load_file(made[0] / "model.safetensors").values():
        smallest = tensor[tensor != 0].abs().min().item()
        assert smallest > torch.finfo(torch.bfloat16).tiny


def test_bfloat16_rounds_as_torch_does() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0x3F80FFFF, 0xBF808001], np.uint32).view(np.float32)
    values = np.concatenate([ties, np.random.default_rng(0).standard_normal(5000, np.float32)])
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert (models.bfloat16(values) == expected).all()


@pytest.mark.parametrize(
    ("start", "nbytes", "expected"),
    [(0, 3, b"abc"), (2, 4, b"cdea"), (4, 11, b"eabcdeabcde"), (0, 0, b"")],
)
def test_pieces_repeat_the_block(start: int, nbytes: int, expected: bytes) -> None:
    assert b"".join(models.pieces(memoryview(b"abcde"), start, nbytes)) == expected


# --- the floor ---


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("floor") / "data"
    path.write_bytes(np.random.default_rng(1).bytes((20 << 20) + 13))
    return path


@pytest.mark.parametrize("write", ["direct", "direct2", "buffered"])
@pytest.mark.parametrize("read", ["read", "map", "direct"])
def test_floor_reads_every_byte_and_writes_the_size(
    read: str, write: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "SPAN", 8 << 20)
    out, nbytes = tmp_path / "out", (9 << 20) + 5
    try:
        total = floor.floor((read, write, 3), str(out), nbytes, [str(data), str(data)])
    except OSError as error:
        if error.errno == errno.EINVAL and "direct" in read + write:
            pytest.skip("the file system of the temporary folder has no direct I/O")
        raise
    assert total == 2 * data.stat().st_size
    written = np.fromfile(out, np.uint8)
    assert written.size == nbytes
    block = floor.WRITE_BLOCK
    assert all(np.ptp(written[at : at + block]) > 0 for at in range(0, nbytes - 5, block))


@pytest.mark.parametrize("how", ["read", "map"])
def test_reader_brings_the_bytes_into_the_buffer(how: str, data: Path) -> None:
    size = data.stat().st_size
    piece = 1 << 20
    with mmap.mmap(-1, piece) as buffer:
        read = floor.reader(how)(floor.Span(str(data), 16 << 20, size), buffer)
        tail = (size - (16 << 20)) % piece
        assert read == size - (16 << 20)
        assert buffer[:tail] == data.read_bytes()[-tail:]


def test_floor_passes_on_what_a_thread_could_not_read(tmp_path: Path, data: Path) -> None:
    beyond = floor.Span(str(data), 0, data.stat().st_size + 1)
    with pytest.raises(EOFError, match="ended at byte"):
        floor.read_span(beyond, mmap.mmap(-1, 1 << 20), 0)
    with pytest.raises(FileNotFoundError):
        floor.floor(("read", "buffered", 1), str(tmp_path / "out"), 10, [str(tmp_path / "none")])


# --- measuring ---


def test_measure_counts_what_a_process_wrote(tmp_path: Path) -> None:
    code = "import os, sys; open('out', 'wb').write(bytes(3_000_000)); print(os.environ['MARK'])"
    log = tmp_path / "log"
    run = measure.measure([sys.executable, "-c", code], tmp_path, log, {"MARK": "here"})
    assert log.read_text() == "here\n"
    assert run.calls_write is not None and 3_000_000 <= run.calls_write < 3_100_000
    assert run.wall >= run.sync > 0 and run.cpu > 0 and run.peak_rss > 1_000_000


def test_measure_tells_how_a_process_failed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(BenchError, match=r"(?s)exit code 1 .*no such model"):
        measure.measure(command, tmp_path, tmp_path / "log")


def test_cold_cache_without_permission_says_what_was_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "DROP", tmp_path)  # a folder cannot be written to
    (tmp_path / "file").write_bytes(bytes(10))
    assert "only the inputs" in caches.cold([tmp_path / "file"])


# --- the contestants ---


def test_house_recipe_has_three_stages(made: list[Path]) -> None:
    first, second, last = yaml.safe_load_all(contestants.house_recipe(made))
    assert (first["name"], first["parameters"]["t"]) == ("component-1", [0.25, 0.3, 0.5])
    assert (second["name"], second["parameters"]["t"]) == ("component-2", [0.4, 0.3, 0.25])
    assert [first["base_model"], second["base_model"]] == [str(made[0]), str(made[1])]
    assert [m["model"] for m in second["models"]] == [str(made[1]), str(made[2])]
    assert "name" not in last and last["parameters"]["t"] == 0.5
    assert last["base_model"] == "component-1"
    assert {stage["merge_method"] for stage in (first, second, last)} == {"slerp"}


def test_missing_mergekit_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_MERGEKIT_VENV", str(tmp_path))
    with pytest.raises(BenchError, match="make bench.*STUDIO_MERGEKIT_VENV"):
        contestants.mergekit_program()


# --- agreement ---


def test_agreement_of_a_model_with_itself_is_exact(made: list[Path]) -> None:
    found = agreement.compare(made[0], made[0])
    assert found["tensors"] == len(SMALL.tensors()) and found["difference"] == 0.0


def test_agreement_is_the_worst_relative_difference(made: list[Path]) -> None:
    one, two = (load_file(folder / "model.safetensors") for folder in made[:2])
    expected = {
        n: ((one[n].double() - y.double()).norm() / y.double().norm()).item()
        for n, y in two.items()
    }
    found = agreement.compare(made[0], made[1])
    assert found["difference"] == pytest.approx(max(expected.values()), rel=1e-5)
    assert found["tensor"] == max(expected, key=lambda name: expected[name])


def test_agreement_refuses_another_set_of_tensors(made: list[Path], tmp_path: Path) -> None:
    models.make_models(SMALL.with_layers(1), [tmp_path])
    with pytest.raises(ValueError, match=r"model\.layers\.1\.input_layernorm"):
        agreement.compare(made[0], tmp_path)


def test_agreement_shows_a_nan(made: list[Path], tmp_path: Path) -> None:
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\xc0\x7f")
    assert np.isnan(agreement.compare(tmp_path, made[0])["difference"])


# --- conclusions ---


def run_of(wall: float, *, rss: float = 300e6, read: int = 0, write: int | None = 10**9) -> Run:
    return Run(wall, 0.1, wall, int(rss), read, write, 5, 5)


def results_of(cache: str = "warm") -> Results:
    found = Results("house", cache, 3 * 10**9, 10**9)
    found.floor_way = "read ×2 + direct"
    found.runs = {
        ENGINE: [run_of(wall) for wall in (1.4, 9.0, 1.3)],
        FLOOR: [run_of(wall) for wall in (1.0, 1.1, 0.9)],
        MERGEKIT: [run_of(wall, write=3 * 10**9) for wall in (20.0, 22.0)],
    }
    found.agreement = {"difference": 3e-3, "tensor": "lm_head.weight", "tensors": 201}
    return found


def verdicts(found: Results) -> list[bool | None]:
    return [bar.met for bar in report.bars(found)]


def test_bars_compare_medians() -> None:
    found = results_of()
    assert [bar.measured for bar in report.bars(found)[:4]] == [
        "15.0×",
        "1.40×",
        "300 MB",
        "1.000 models",
    ]
    assert verdicts(found) == [True] * 5


@pytest.mark.parametrize(
    ("which", "name", "runs"),
    [
        (0, MERGEKIT, [run_of(13.9)]),
        (1, FLOOR, [run_of(0.9)]),
        (2, ENGINE, [run_of(1.4), run_of(1.4, rss=501e6)]),
        (3, ENGINE, [run_of(1.4, write=1_020_000_000)]),
        (3, ENGINE, [run_of(1.4, write=900_000_000)]),
    ],
)
def test_bar_is_not_met(which: int, name: str, runs: list[Run]) -> None:
    found = results_of()
    found.runs[name] = runs
    assert verdicts(found) == [at != which for at in range(5)]


@pytest.mark.parametrize("difference", [5e-3, float("nan")])
def test_bar_of_agreement_is_not_met(difference: float) -> None:
    found = results_of()
    found.agreement["difference"] = difference
    assert verdicts(found) == [True] * 4 + [False]


def test_bars_without_the_peer_are_not_measured() -> None:
    found = results_of()
    del found.runs[MERGEKIT]
    found.agreement = {}
    found.runs[ENGINE] = [run_of(1.4, write=None)]
    assert verdicts(found) == [None, True, True, None]
    assert "not measured" in report.contest_text(found)


def test_text_says_when_the_cache_was_in_another_state() -> None:
    found = results_of("cold")
    assert "NOT COLD" in report.contest_text(found)
    found.runs[FLOOR] = [run_of(1.0, read=3 * 10**9)]
    assert "NOT COLD" not in report.contest_text(found)
    found.cache = "warm"
    assert "NOT WARM" in report.contest_text(found)


def sizes_of(walls: list[float], peaks: list[float]) -> list[Results]:
    found = [Results("scale", "warm", 3 * 10**9 * at, 10**9 * at) for at in (1, 2, 4)]
    for results, wall, peak in zip(found, walls, peaks, strict=True):
        results.runs[ENGINE] = [run_of(wall, rss=peak)] * 3
        results.runs[FLOOR] = [run_of(0.5 + results.output_bytes / 2e9)] * 3
    return found


def test_fit_finds_startup_and_slope() -> None:
    line = report.fit(sizes_of([1.5 + 0.25 * gb for gb in (4, 8, 16)], [300e6, 310e6, 306e6]))
    assert (line.startup, line.per_gb) == (pytest.approx(1.5), pytest.approx(0.25))
    assert line.worst < 1e-9 and line.growth == pytest.approx(310 / 300)


def test_fit_shows_a_curve_and_growing_memory() -> None:
    text = report.scale_text(sizes_of([1.0, 4.0, 16.0], [300e6, 600e6, 1.2e9]))
    assert text.count("NOT MET") == 2


def test_scale_compares_the_slopes_of_engine_and_floor() -> None:
    text = report.scale_text(sizes_of([1.5 + 0.25 * gb for gb in (4, 8, 16)], [300e6] * 3))
    assert "engine: wall = 1.50 s + 0.250 s per GB" in text
    assert "floor: wall = 0.50 s + 0.125 s per GB" in text
    assert "per GB the engine takes 2.00× the floor" in text


# --- the whole, with an engine that copies ---


COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2])"


@pytest.fixture
def copying_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(recipe: Path, out: Path) -> list[str]:
        return [sys.executable, "-c", COPY, str(recipe.parent / "model-1"), str(out)]

    monkeypatch.setattr(contestants, "engine_command", command)
    monkeypatch.setattr(contestants, "floor_ways", lambda *_: [FloorWay("read", "buffered", 2)])
    monkeypatch.setattr(contest, "PAUSE", 0.0)
    monkeypatch.setattr(shapes, "TINY", SMALL)


@pytest.mark.parametrize(("keep", "left"), [(False, set()), (True, {"recipe.yaml", "model-1"})])
def test_course_leaves_what_it_was_asked_to_keep(
    keep: bool, left: set[str], tmp_path: Path
) -> None:
    options = contest.Options(2, 0, (), ("warm",), tmp_path, keep)
    with contest.Course("house", SMALL, options) as course:
        course.out.mkdir(parents=True)
    found = {path.name for path in tmp_path.glob("*/*")}
    assert found >= left and bool(found) == keep and "run" not in found


def test_course_asks_for_the_disk_it_needs(tmp_path: Path) -> None:
    options = contest.Options(2, 2, (), ("warm",), tmp_path)
    rows = shutil.disk_usage(tmp_path).free // (1 << 18)  # one model alone fills the disk
    huge = shapes.Shape(hidden=1 << 16, inter=1, layers=1, heads=1, kv_heads=1, vocab=rows)
    with pytest.raises(BenchError, match="GB of disk are needed"):
        contest.Course("house", huge, options).__enter__()


@pytest.mark.usefixtures("copying_engine")
def test_bench_measures_reports_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder := tmp_path / "dir").mkdir()
    arguments = ["--quick", "--only", "house", "--only", "scale", "--without", "mergekit"]
    arguments += ["--cache", "warm", "--dir", str(folder), "--json", str(tmp_path / "out.json")]
    assert program.main(arguments) == 0
    assert list(folder.iterdir()) == []
    text = capsys.readouterr().out
    assert "house, warm cache" in text and "scale, warm cache" in text
    found = json.loads((tmp_path / "out.json").read_text())
    (house,) = found["contests"]
    assert len(house["runs"]["engine"]) == len(house["runs"]["floor"]) == 2
    assert house["output_bytes"] == SMALL.nbytes and house["input_bytes"] > 3 * SMALL.nbytes
    assert [size["output_bytes"] for size in found["scale"]] == [
        SMALL.with_layers(layers).nbytes for layers in shapes.TINY_SCALE_LAYERS
    ]


@pytest.mark.usefixtures("copying_engine")
def test_bench_stops_with_the_engine_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [sys.executable, "-c", "raise SystemExit('out of order')"]
    monkeypatch.setattr(contestants, "engine_command", lambda *_: broken)
    arguments = ["--quick", "--only", "scale", "--dir", str(tmp_path)]
    assert program.main(arguments) == 2
    assert "out of order" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--dir=nowhere", "there is no folder nowhere: make it, or name another"),
        ("--json=nowhere/out.json", "there is no folder nowhere: make it, or name another"),
        ("--json=.", ". is a folder: name a file"),
    ],
)
def test_bench_refuses_what_it_could_not_write_before_it_begins(
    option: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["--quick", "--only", "scale", option])
    assert told in capsys.readouterr().err


def test_tuning_times_every_part_and_tells_the_bars(tmp_path: Path) -> None:
    found = tuning.tune(tmp_path, 3)
    assert all(len(timing.times) == 3 and min(timing.times) > 0 for timing in found)
    text = tuning.tuning_text(found)
    assert "geometry: median < 10 ms" in text and "kept Gram matrices loaded" in text
    slow = [tuning.Timing(timing.what, [20.0] * 3) for timing in found]
    assert [bar.met for bar in tuning.tuning_bars(slow)] == [False, True]
