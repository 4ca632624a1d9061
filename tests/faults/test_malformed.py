"""Input that is damaged, hostile or nonsense: a clear error, exit code 2, nothing at the output."""

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.cli import main
from studio.merge.output import partial_folder
from tests.checkpoints import write_checkpoint
from tests.faults.merging import run_studio

Header = dict[str, Any]
NAME = "model.layers.1.mlp.up_proj.weight"
OTHER = "model.layers.1.mlp.gate_proj.weight"


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def with_header(edit: Callable[[Header], Header | None]) -> Callable[[Path], None]:
    """Damage: edit the header, keep the data."""

    def damage(folder: Path) -> None:
        data = weights(folder).read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        edited = edit(header)
        text = json.dumps(header if edited is None else edited).encode()
        weights(folder).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return damage


def with_entry(**changes: Any) -> Callable[[Path], None]:
    return with_header(lambda header: header[NAME].update(changes))


def with_bytes(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: void(weights(folder).write_bytes(edit(weights(folder).read_bytes())))


def with_tensor(name: str, value: torch.Tensor) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        save_file(load_file(weights(folder)) | {name: value}, weights(folder))

    return damage


def with_file(name: str, content: bytes | str) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: void((folder / name).write_bytes(data))


def with_config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return damage


def with_bin(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        torch.save(load_file(weights(folder)), folder / "pytorch_model.bin")
        weights(folder).unlink()
        path = folder / "pytorch_model.bin"
        path.write_bytes(edit(path.read_bytes()))

    return damage


def with_index(edit: Callable[[Header], Header | None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        shutil.rmtree(folder)
        write_checkpoint(folder, layers=2, shards=3)
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        edited = edit(index)
        path.write_text(json.dumps(index if edited is None else edited))

    return damage


def void(_: object) -> None:
    """For lambdas that only act."""


def swap(header: Header) -> None:
    """Two tensors claim the same bytes."""
    header[NAME]["data_offsets"] = header[OTHER]["data_offsets"]


def rename(header: Header) -> None:
    header["model.layers.1.mlp.up_projection.weight"] = header.pop(NAME)


def loop(folder: Path) -> None:
    weights(folder).unlink()
    weights(folder).symlink_to(weights(folder))


def directory(folder: Path) -> None:
    weights(folder).unlink()
    weights(folder).mkdir()


def no_weights(folder: Path) -> None:
    weights(folder).unlink()


class Asks:
    """A pickle of this runs code when it is loaded without care."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/studio-was-here",)


def hostile_pickle(folder: Path) -> None:
    weights(folder).unlink()
    torch.save({NAME: Asks()}, folder / "pytorch_model.bin")


NAN = torch.full((64, 32), torch.nan, dtype=torch.bfloat16)
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty file": (with_bytes(lambda d: b""), "0 bytes long"),
    "seven bytes": (with_bytes(lambda d: d[:7]), "7 bytes long"),
    "length only": (with_bytes(lambda d: d[:8]), "cut short"),
    "cut in the header": (with_bytes(lambda d: d[:500]), "cut short"),
    "cut in the data": (with_bytes(lambda d: d[:-1]), "cut short"),
    "one byte too many": (with_bytes(lambda d: d + b"x"), "longer than its header"),
    "huge length": (with_bytes(lambda d: b"\xff" * 8 + d[8:]), "claims"),
    "zero length": (with_bytes(lambda d: b"\0" * 8 + d[8:]), "begins with"),
    "no JSON": (with_bytes(lambda d: d[:9] + b"}" + d[10:]), "JSON"),
    "zeros": (with_bytes(lambda d: b"\0" * len(d)), "model.safetensors"),
    "LFS pointer": (with_bytes(lambda d: b"version https://git-lfs.github.com/spec/v1\n"), "LFS"),
    "HTML page": (with_bytes(lambda d: b"<!DOCTYPE html><html>Not found</html>"), "model.safe"),
    "deep JSON": (with_bytes(lambda d: struct.pack("<Q", 9000) + b'{"a":' + b"[" * 8995), "JSON"),
    "unknown dtype": (with_entry(dtype="BF17"), "BF17"),
    "dtype is a list": (with_entry(dtype=["BF16"]), "dtype"),
    "wider dtype": (with_entry(dtype="F32"), "span"),
    "negative shape": (with_entry(shape=[-64, -32]), "shape"),
    "huge shape": (with_entry(shape=[2**62, 2**62]), NAME),
    "fractional shape": (with_entry(shape=[64.0, 32]), "shape"),
    "shape is text": (with_entry(shape="64x32"), "shape"),
    "no shape": (with_header(lambda h: void(h[NAME].pop("shape"))), "shape"),
    "transposed shape": (with_entry(shape=[32, 64]), "[32, 64]"),
    "backward offsets": (with_entry(data_offsets=[4096, 0]), "data_offsets"),
    "offsets beyond the file": (with_entry(data_offsets=[10**9, 10**9 + 4096]), "hole before"),
    "three offsets": (with_entry(data_offsets=[0, 1, 2]), "data_offsets"),
    "overlap": (with_header(swap), "overlap"),
    "hole": (with_header(lambda h: void(h.pop(NAME))), "hole"),
    "entry is null": (with_header(lambda h: h | {NAME: None}), NAME),
    "header is a list": (with_header(lambda h: [h]), "begins with"),  # type: ignore[arg-type, return-value]
    "metadata is a number": (with_header(lambda h: h | {"__metadata__": 3}), "__metadata__"),
    "renamed tensor": (with_header(rename), "up_projection"),
    "a name of 5000 digits": (with_tensor("model." + "9" * 5000, torch.ones(1)), "lacks"),
    "only metadata": (with_bytes(lambda d: struct.pack("<Q", 2) + b"{}"), "layers"),
    "NaN": (with_tensor(NAME, NAN), f"tensor {NAME} of"),
    "infinity": (with_tensor(NAME, NAN.nan_to_num(torch.inf)), f"tensor {NAME} of"),
    "packed weights": (with_tensor(NAME, torch.ones(64, 32, dtype=torch.int8)), "quantised"),
    "quantised config": (with_config(quantization_config={"bits": 4}), "quantised"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config is a list": (with_file("config.json", "[]"), "config.json"),
    "config is binary": (with_file("config.json", b"\xff\xfe\0"), "config.json"),
    "config is cut": (with_file("config.json", '{"hidden_size": 3'), "config.json"),
    "config of nonsense": (with_config(rope_theta={"a": [1]}, layer_types=[[1]]), "rope_theta"),
    "config without layers": (with_config(num_hidden_layers="two"), "num_hidden_layers"),
    "no tokenizer in it": (with_file("tokenizer.json", "[]"), "tokenizer.json"),
    "tokenizer settings cut": (with_file("tokenizer_config.json", "{"), "tokenizer_config.json"),
    "no weights": (no_weights, "no weights"),
    "link to itself": (loop, "model.safetensors"),
    "folder for a file": (directory, "model.safetensors"),
    "bin cut": (with_bin(lambda d: d[: len(d) // 2]), "pytorch_model.bin"),
    "bin damaged": (with_bin(lambda d: d[:200] + b"\xff" * 400 + d[600:]), "pytorch_model.bin"),
    "bin is not a zip": (with_bin(lambda d: b"hello"), "pytorch_model.bin"),
    "bin before 1.6": (with_bin(lambda d: pickle.dumps({"a": 1})), "format before torch 1.6"),
    "bin runs code": (hostile_pickle, "system"),
    "index is a list": (with_index(lambda i: []), "index.json"),  # type: ignore[arg-type, return-value]
    "index without map": (with_index(lambda i: {"weight_map": {}}), "weight_map"),
    "index leaves the folder": (
        with_index(lambda i: void(i["weight_map"].update({NAME: "../a/model.safetensors"}))),
        "../a/model.safetensors",
    ),
    "index names a missing shard": (
        with_index(lambda i: void(i["weight_map"].update({NAME: "model-9.safetensors"}))),
        "model-9.safetensors",
    ),
    "index names a missing tensor": (
        with_index(lambda i: void(i["weight_map"].update(x="model-00001-of-00003.safetensors"))),
        "'x'",
    ),
}


@pytest.fixture(autouse=True)
def in_the_folder_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sources `a` and `b` and a recipe in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(Path("a"), layers=2)
    write_checkpoint(Path("b"), layers=2, seed=2)
    Path("recipe.yaml").write_text(
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\n"
        "parameters: {t: 0.5}\n"
    )
    yield


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error text of a command that must fail cleanly."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    error = [line for line in told.err.splitlines() if not line.startswith("note: ")]
    assert error[0].startswith("error: ") or "  0 %" in error[0], told.err
    assert "Traceback" not in told.err and told.out == ""
    assert len(told.err) < 4000, "one screen, whatever the file holds"
    assert not Path("out").exists()
    return told.err


def test_the_sources_are_fine_undamaged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "recipe.yaml", "--out", "out"]) == 0
    assert capsys.readouterr().out == "out\n"


@pytest.mark.parametrize("which", ["a", "b"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_a_clear_error(
    capsys: pytest.CaptureFixture[str], damage: str, which: str
) -> None:
    damage_it, part = DAMAGES[damage]
    damage_it(Path(which))
    assert part in refused(capsys, "merge", "recipe.yaml", "--out", "out")
    assert not Path("/tmp/studio-was-here").exists()
    if "NaN" not in damage and "infinity" not in damage:
        assert not partial_folder(Path("out")).exists(), "found before anything was made"
        refused(capsys, "check", "recipe.yaml")


@pytest.mark.parametrize("damage", ["NaN", "cut in the data", "bin runs code", "deep JSON"])
def test_a_real_process_says_the_same(damage: str) -> None:
    damage_it, part = DAMAGES[damage]
    damage_it(Path("b"))
    run = run_studio("merge", "recipe.yaml", "--out", "out")
    assert run.returncode == 2 and run.stdout == ""
    assert part in run.stderr and "error: " in run.stderr and "Traceback" not in run.stderr
    assert not Path("out").exists()


def test_there_are_enough_of_them() -> None:
    assert len(DAMAGES) > 50


RECIPES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "empty"),
    "binary": (b"\x89PNG\xff", "not UTF-8"),
    "control characters": ("a: \x00", "recipe.yaml"),
    "no YAML": ("a: [", "recipe.yaml"),
    "a list": ("- a\n- b", "recipe.yaml"),
    "a number": ("7", "recipe.yaml"),
    "deep": ("[" * 5000, "recipe.yaml"),
    "aliases": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "recipe.yaml"),
    "code": ("!!python/object/apply:os.system [touch x]", "recipe.yaml"),
    "unknown method": ("merge_method: ties\nmodels: [{model: a}]", '"ties" is not supported'),
    "no models": ("merge_method: slerp\nbase_model: a\nparameters: {t: 1}", "models"),
    "one model": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: a}]\nparameters: {t: 1}",
        "exactly 2 models",
    ),
    "t is text": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: half}",
        "half",
    ),
    "t is NaN": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: .nan}",
        "recipe.yaml",
    ),
    "unknown folder": (
        "merge_method: slerp\nbase_model: ./c\nmodels: [{model: b}]\nparameters: {t: 1}",
        "./c: there is no such folder",
    ),
    "tokenizer_source": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 1}\n"
        "tokenizer_source: unoin",
        '"unoin" is neither base nor union',
    ),
    "bad chat template": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 1}\n"
        "chat_template: '{% for %}'",
        "Jinja",
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_senseless_recipe_is_a_clear_error(
    capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    content, part = RECIPES[recipe]
    Path("recipe.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    assert part in refused(capsys, "merge", "recipe.yaml", "--out", "out")
    assert not Path("x").exists()


def test_a_recipe_that_is_not_there_or_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capsys, "merge", "none.yaml", "--out", "out")
    assert "directory" in refused(capsys, "merge", "a", "--out", "out")


def fuzzed(data: bytes, rng: random.Random) -> bytes:
    """One to four random changes in the header or its length."""
    length = int.from_bytes(data[:8], "little")
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(8 + length)
        kind = rng.randrange(3)
        if kind == 0:
            changed[at] = rng.randrange(256)
        elif kind == 1:
            changed[at] ^= 1 << rng.randrange(8)
        else:
            count = rng.randint(1, 16)
            changed[at : at + count] = changed[(start := rng.randrange(length)) : start + count]
    return bytes(changed)


def test_fuzzed_headers_are_refused_or_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever survives preflight must still be the same weights under the same names."""
    sound, good = weights(Path("b")).read_bytes(), load_file("b/model.safetensors")
    rng = random.Random(7)
    refusals = 0
    for _ in range(150):
        weights(Path("b")).write_bytes(fuzzed(sound, rng))
        code = main(["check", "recipe.yaml", "--out", "out"])
        told = capsys.readouterr()
        assert code in (0, 2)
        if code == 2:
            refusals += 1
            assert told.err.startswith("error: ") and len(told.err) < 4000 and told.out == ""
        else:
            loaded = load_file("b/model.safetensors")
            assert all(
                torch.equal(loaded[name].view(torch.uint8), good[name].view(torch.uint8))
                for name in good
            )
    assert refusals > 120
    assert not Path("out").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_fuzzed_json_is_refused_or_harmless(capsys: pytest.CaptureFixture[str], file: str) -> None:
    sound = (Path("a") / file).read_bytes()
    rng = random.Random(file)
    codes = set()
    for _ in range(60):
        changed = bytearray(sound)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(sound))] = rng.randrange(256)
        (Path("a") / file).write_bytes(changed)
        codes.add(main(["check", "recipe.yaml"]))
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        assert told.err == "" or told.err.startswith("error: ")
    assert codes == {0, 2}
