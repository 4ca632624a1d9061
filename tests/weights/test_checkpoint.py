"""Checkpoints: the same tensors from every format, and every fault told with its mending."""

import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from studio.errors import StudioError
from studio.weights.checkpoint import Checkpoint

Tensors = dict[str, torch.Tensor]
FORMATS = ["safetensors", "bin"]


def weights() -> Tensors:
    """Every kind of tensor that a checkpoint may hold."""
    random_numbers = torch.Generator().manual_seed(1)
    values = torch.randn(40, 30, generator=random_numbers)
    return {
        "embed.weight": values.bfloat16(),
        "layers.0.weight": values.half(),
        "layers.0.bias": values[0].clone(),
        "layers.0.inv_freq": values[1].double(),
        "layers.0.mask": values[2] > 0,
        "layers.0.ids": torch.arange(7),
        "layers.1.weight": torch.empty(0, 3),
        "scale": torch.tensor(2.5),
    }


def save(tensors: object, path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def single(folder: Path, tensors: object, kind: str = "safetensors") -> Path:
    """A checkpoint in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    save(tensors, folder / {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[kind])
    return folder


def sharded(folder: Path, tensors: Tensors, kind: str = "safetensors") -> Path:
    """A checkpoint in three files and an index."""
    single(folder, {}, kind)
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    (folder / f"{stem}.{kind}").unlink()
    weight_map = {
        name: f"{stem}-0000{index % 3 + 1}-of-00003.{kind}" for index, name in enumerate(tensors)
    }
    for file in set(weight_map.values()):
        save({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    return folder


def edit_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    path = next(folder.glob("*.index.json"))
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("make", [single, sharded])
def test_load_gives_the_saved_tensors(
    tmp_path: Path, make: Callable[[Path, Tensors, str], Path], kind: str
) -> None:
    checkpoint = Checkpoint.open(make(tmp_path, weights(), kind), "someone/model")
    assert checkpoint.label == "someone/model" and checkpoint.path == tmp_path
    assert checkpoint.config == {"model_type": "llama", "num_hidden_layers": 2}
    assert checkpoint.tensors.keys() == weights().keys()
    for name, expected in weights().items():
        loaded, info = checkpoint.load(name), checkpoint.tensors[name]
        assert loaded.dtype == expected.dtype and loaded.is_contiguous()
        assert torch.equal(loaded, expected), name
        assert (info.name, info.shape) == (name, tuple(expected.shape))
        assert info.nbytes == expected.nbytes
        with info.file.open("rb") as stream:
            stream.seek(info.start)
            assert (
                stream.read(info.nbytes) == loaded.reshape(-1).view(torch.uint8).numpy().tobytes()
            )


@pytest.mark.parametrize("kind", FORMATS)
def test_files_and_tensors_are_in_the_order_of_the_disk(tmp_path: Path, kind: str) -> None:
    checkpoint = Checkpoint.open(sharded(tmp_path, weights(), kind), "m")
    assert list(checkpoint.files) == sorted(checkpoint.files)
    places = [(tensor.file, tensor.start) for tensor in checkpoint.tensors.values()]
    assert places == sorted(places) and len(checkpoint.files) == 3


def test_load_works_at_any_offset(tmp_path: Path) -> None:
    """A header of any length: the data of float32 begins at an odd byte."""
    values = torch.randn(5000)
    for padding in range(1, 9):
        entry = {"w": {"dtype": "F32", "shape": [5000], "data_offsets": [0, 20_000]}}
        text = json.dumps(entry).encode() + b" " * padding
        single(tmp_path, {})
        path = tmp_path / "model.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + values.numpy().tobytes())
        loaded = Checkpoint.open(tmp_path, "m").load("w")
        assert torch.equal(loaded, values)
        assert torch.equal(torch.empty(5000).copy_(loaded), values)
        assert torch.equal(loaded[7:4001].bfloat16(), values[7:4001].bfloat16())


def test_writing_to_a_loaded_tensor_changes_nothing_else(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(single(tmp_path, weights()), "m")
    checkpoint.load("embed.weight").zero_()
    assert torch.equal(checkpoint.load("embed.weight"), weights()["embed.weight"])


def test_loading_holds_no_file_open_once_the_tensor_is_gone(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(single(tmp_path, weights()), "m")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        checkpoint.load("embed.weight")
    assert len(os.listdir("/proc/self/fd")) == before


def test_shared_tensors_of_a_bin_are_each_found(tmp_path: Path) -> None:
    table = torch.randn(6, 4)
    single(
        tmp_path,
        {"embed": table, "head": table, "tail": table[2:], "p": torch.nn.Parameter(table)},
        "bin",
    )
    checkpoint = Checkpoint.open(tmp_path, "m")
    for name, expected in {"embed": table, "head": table, "tail": table[2:], "p": table}.items():
        assert torch.equal(checkpoint.load(name), expected)
    assert checkpoint.tensors["embed"].start == checkpoint.tensors["head"].start


def test_safetensors_win_over_bin_and_an_index_over_a_file(tmp_path: Path) -> None:
    single(tmp_path, {"w": torch.ones(2)}, "bin")
    single(tmp_path, {"w": torch.zeros(2)}, "safetensors")
    assert Checkpoint.open(tmp_path, "m").load("w").tolist() == [0, 0]
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"w": torch.full((2,), 7.0)}, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path, "m").load("w").tolist() == [0, 0]


def test_the_index_decides_where_a_tensor_is(tmp_path: Path) -> None:
    """Shards may hold leftovers: what the index does not name is not part of the model."""
    sharded(tmp_path, {"a": torch.zeros(2), "b": torch.ones(2), "c": torch.ones(2)})
    save_file(
        {"a": torch.full((2,), 9.0), "b": torch.ones(2), "x": torch.ones(1)},
        tmp_path / "model-00002-of-00003.safetensors",
    )
    checkpoint = Checkpoint.open(tmp_path, "m")
    assert sorted(checkpoint.tensors) == ["a", "b", "c"]
    assert checkpoint.load("a").tolist() == [0, 0]


# Faults of a checkpoint: what makes it, and the words that must tell it.


def without_shards(folder: Path) -> None:
    for number in (1, 3):
        (folder / f"model-0000{number}-of-00003.safetensors").unlink()


def as_config(text: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_bytes(
        text if isinstance(text, bytes) else text.encode()
    )


def as_index(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


def in_index(name: str, file: object) -> Callable[[Path], object]:
    return lambda folder: edit_index(folder, lambda weight_map: weight_map.update({name: file}))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "m: there is no folder .* download"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
    "config not JSON": (as_config("{,}"), "config.json: not valid JSON"),
    "config empty": (as_config(""), "config.json: not valid JSON"),
    "config not UTF-8": (as_config(b'{"a": "\xff"}'), "config.json: not valid JSON"),
    "config a list": (as_config("[1]"), r"config.json: expected a JSON object, found \[1\]"),
    "config says it twice": (as_config('{"a": 1, "a": 2}'), "'a' occurs 2 times"),
    "config quantised": (
        as_config('{"quantization_config": {"bits": 4}}'),
        "quantised .config.json has quantization_config.; merge the unquantised original",
    ),
    "no index": (
        lambda folder: (folder / "model.safetensors.index.json").unlink(),
        "no weights: neither model.safetensors nor pytorch_model.bin",
    ),
    "two shards missing": (
        without_shards,
        "2 of 3 files of weights are missing: model-00001-of-.*, model-00003-of-",
    ),
    "index not JSON": (as_index("weights"), "index.json: not valid JSON"),
    "index without map": (as_index("{}"), "weight_map is None"),
    "index with an empty map": (as_index('{"weight_map": {}}'), "weight_map is {}"),
    "index with a list": (as_index('{"weight_map": ["a"]}'), r"weight_map is \['a'\]"),
    "index naming it twice": (as_index('{"weight_map": {"a": "x", "a": "y"}}'), "'a' occurs 2"),
    "a number for a file": (in_index("x", 3), "tensor 'x' is said to be in 3, which is not a"),
    "file above the folder": (
        in_index("x", "../w.safetensors"),
        "'../w.safetensors', which is not",
    ),
    "file at the root": (in_index("x", "/etc/w.safetensors"), "'/etc/w.safetensors', which is not"),
    "file in a folder": (in_index("x", "sub/w.safetensors"), "which is not a .safetensors file of"),
    "file of another kind": (in_index("x", "config.json"), "'config.json', which is not"),
    "the folder itself": (in_index("x", "."), "'.', which is not"),
    "the folder above": (in_index("x", ".."), "'..', which is not"),
    "no name": (in_index("x", ""), "'', which is not"),
    "a null byte": (in_index("x", "a\0.safetensors"), "1 of 4 files of weights are missing"),
    "tensor absent": (
        in_index("x", "model-00002-of-00003.safetensors"),
        "1 tensors are not in .* the first is 'x' in model-00002-of-00003.safetensors",
    ),
    "shard cut": (
        lambda folder: os.truncate(folder / "model-00002-of-00003.safetensors", 100),
        "model-00002-of-00003.safetensors: the header claims .* cut short",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_open_refuses(tmp_path: Path, case: str) -> None:
    spoil, message = FAULTS[case]
    folder = sharded(tmp_path / "model", weights())
    spoil(folder)
    with pytest.raises(StudioError, match=message):
        Checkpoint.open(folder, "m")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"l.0.qweight": torch.zeros(2, dtype=torch.int32)}, "l.0.qweight is I32"),
        ({"l.0.weight_packed": torch.zeros(2, dtype=torch.int32)}, "l.0.weight_packed is I32"),
        ({"l.0.weight": torch.zeros(2, dtype=torch.uint8)}, "l.0.weight is U8"),
        ({"l.0.weight": torch.zeros(2, dtype=torch.int8)}, "l.0.weight is I8"),
        ({"l.0.weight": torch.zeros(2).to(torch.float8_e4m3fn)}, "l.0.weight is F8_E4M3"),
        ({"l.0.weight.quant_state.nf4": torch.zeros(2)}, "l.0.weight.quant_state.nf4 is F32"),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_open_refuses_quantised(tmp_path: Path, kind: str, tensors: Tensors, message: str) -> None:
    with pytest.raises(StudioError, match=rf"quantised \({message}\); merge the unquantised"):
        Checkpoint.open(single(tmp_path, tensors, kind), "m")


class Code:
    """Pickles as a call."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def test_open_refuses_and_does_not_run_code_in_a_bin(tmp_path: Path) -> None:
    single(tmp_path, {"w": torch.ones(2), "x": Code(tmp_path / "ran")}, "bin")
    with pytest.raises(StudioError, match="it asks to run '(posix|nt).system', which is refused"):
        Checkpoint.open(tmp_path, "m")
    assert not (tmp_path / "ran").exists()


def rezip(path: Path) -> None:
    """Pack a .bin again, compressed, as no version of torch does."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def legacy(path: Path) -> None:
    torch.save(weights(), path, _use_new_zipfile_serialization=False)


BIN_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: os.truncate(path, 0), "not a .bin file"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "not a .bin file"),
    "Git LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "legacy": (legacy, "format before torch 1.6; convert the model to safetensors"),
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps({})), "format before torch 1.6"),
    "cut in the middle": (lambda path: os.truncate(path, 5000), "cut short or damaged"),
    "cut by a byte": (
        lambda path: os.truncate(path, path.stat().st_size - 1),
        "cut short or damaged",
    ),
    "compressed": (rezip, "its records are compressed"),
    "another zip": (
        lambda path: zipfile.ZipFile(path, "w").writestr("readme", "hello"),
        "cut short or damaged",
    ),
    "a list": (lambda path: torch.save([1, 2], path), r"holds \[1, 2\] instead of tensors by name"),
    "a bare tensor": (lambda path: torch.save(torch.ones(2), path), "instead of tensors by name"),
    "nested": (
        lambda path: torch.save({"state_dict": weights()}, path),
        "tensor 'state_dict': expected a name and a tensor, found dict",
    ),
    "numbers": (lambda path: torch.save({"step": 3}, path), "tensor 'step': .* found int"),
    "names that are numbers": (lambda path: torch.save({3: torch.ones(1)}, path), "tensor 3: exp"),
    "transposed": (
        lambda path: torch.save({"w": torch.ones(3, 2).t()}, path),
        "tensor 'w': stored transposed; convert",
    ),
    "sparse": (lambda path: torch.save({"w": torch.eye(2).to_sparse()}, path), "'w': .*sparse"),
    "complex": (
        lambda path: torch.save({"w": torch.ones(2, dtype=torch.complex128)}, path),
        "'w': torch.strided torch.complex128 is none of",
    ),
}


@pytest.mark.parametrize("case", BIN_FAULTS)
@pytest.mark.filterwarnings("ignore:.*Sparse:UserWarning")
def test_open_refuses_a_bin(tmp_path: Path, case: str) -> None:
    spoil, message = BIN_FAULTS[case]
    path = single(tmp_path, weights(), "bin") / "pytorch_model.bin"
    spoil(path)
    with pytest.raises(StudioError, match=message) as told:
        Checkpoint.open(tmp_path, "m")
    assert "pytorch_model.bin" in str(told.value) and len(str(told.value)) < 700


@pytest.mark.parametrize("seed", range(10))
def test_open_survives_a_damaged_bin(tmp_path: Path, seed: int) -> None:
    """Changed bytes are refused with a StudioError or leave tensors that lie within the file."""
    path = single(tmp_path, {"a": torch.ones(9), "b": torch.zeros(4)}, "bin") / "pytorch_model.bin"
    content, rng = path.read_bytes(), random.Random(seed)
    for _ in range(20):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            checkpoint = Checkpoint.open(tmp_path, "m")
        except StudioError as error:
            assert "pytorch_model.bin" in str(error)
        else:
            for info in checkpoint.tensors.values():
                assert 0 < info.start <= len(damaged) - info.nbytes
                assert checkpoint.load(info.name).shape == info.shape


def test_load_tells_when_the_file_has_shrunk_or_gone(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(single(tmp_path, weights()), "m")
    os.truncate(checkpoint.files[0], 1000)
    with pytest.raises(StudioError, match="'embed.weight' cannot be read.*has changed since"):
        checkpoint.load("embed.weight")
    checkpoint.files[0].unlink()
    with pytest.raises(StudioError, match="model.safetensors.*No such file"):
        checkpoint.load("embed.weight")
    with pytest.raises(StudioError, match="model.safetensors.*cannot be read any more"):
        checkpoint.fingerprint()


# Fingerprints


@pytest.mark.parametrize("kind", FORMATS)
def test_fingerprint_is_that_of_a_copy_elsewhere(tmp_path: Path, kind: str) -> None:
    first = Checkpoint.open(sharded(tmp_path / "one", weights(), kind), "m")
    copy = Checkpoint.open(Path(shutil.copytree(tmp_path / "one", tmp_path / "two")), "other name")
    assert first.fingerprint() == copy.fingerprint()
    assert len(first.fingerprint()) == 32 and int(first.fingerprint(), 16) >= 0


@pytest.mark.parametrize("kind", FORMATS)
def test_fingerprint_changes_with_names_values_config_and_files(tmp_path: Path, kind: str) -> None:
    def of(folder: str, tensors: Tensors, make: Callable[..., Path] = single) -> str:
        return Checkpoint.open(make(tmp_path / folder, tensors, kind), "m").fingerprint()

    changed = weights()
    changed["scale"] = torch.tensor(2.25)
    renamed = {name.replace("0.weight", "9.weight"): value for name, value in weights().items()}
    prints = [
        of("same", weights()),
        of("values", changed),
        of("names", renamed),
        of("files", weights(), sharded),
    ]
    (tmp_path / "same" / "config.json").write_text('{"model_type": "llama"}')
    prints.append(Checkpoint.open(tmp_path / "same", "m").fingerprint())
    assert len(set(prints)) == 5


@given(st.integers(0, 15), st.integers(0, 4095))
def test_fingerprint_sees_each_sampled_block(
    tmp_path_factory: pytest.TempPathFactory, block: int, byte: int
) -> None:
    folder = tmp_path_factory.mktemp("sampled")
    checkpoint = Checkpoint.open(single(folder, {"w": torch.zeros(250_000)}), "m")
    before, path = checkpoint.fingerprint(), checkpoint.files[0]
    at = (path.stat().st_size - 4096) * block // 15 + byte
    data = bytearray(path.read_bytes())
    if at >= checkpoint.tensors["w"].start:
        data[at] ^= 1
        path.write_bytes(data)
        assert checkpoint.fingerprint() != before
    path.unlink()


def test_state_tells_a_touched_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(sharded(tmp_path, weights()), "m")
    before = checkpoint.state()
    assert [entry[0] for entry in before] == [file.name for file in checkpoint.files]
    assert before[0][1] == checkpoint.files[0].stat().st_size
    assert checkpoint.state() == before
    os.utime(checkpoint.files[1], ns=(0, 12345))
    after = checkpoint.state()
    assert (after[0], after[2]) == (before[0], before[2]) and after[1][2] == 12345


# Pages


def resident_kib(path: Path) -> int:
    """How much of a file's maps is in this process's memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0] and ":" not in line.split(" ", 1)[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_what_is_loaded_is_mapped_and_given_back(tmp_path: Path) -> None:
    values = torch.arange(500_000, dtype=torch.float32)
    checkpoint = Checkpoint.open(single(tmp_path, {"w": values}), "m")
    loaded = checkpoint.load("w")
    assert torch.equal(loaded, values)
    assert resident_kib(checkpoint.files[0]) >= 1950
    del loaded
    assert resident_kib(checkpoint.files[0]) == 0
