"""Headers: what is made is what is read, and whatever is wrong is told."""

import json
import random
import re
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from studio.errors import StudioError
from studio.weights.dtypes import ITEMSIZE, TORCH_NAMES
from studio.weights.header import MAX_HEADER, TensorInfo, make_header, read_header
from studio.weights.strict_json import shown
from studio.weights.torch_kernels import TORCH

F32_2 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def packed(header: object, data: int = 8) -> bytes:
    """A file with this header (bytes as they are, anything else as JSON) and some bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def test_read_header_gives_place_type_and_shape_in_file_order(tmp_path: Path) -> None:
    header = {
        "late": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},
        "early": {"dtype": "I32", "shape": [], "data_offsets": [0, 4]},
        "none": {"dtype": "F64", "shape": [0, 9], "data_offsets": [16, 16]},
    }
    content = packed(header, 16)
    path = written(tmp_path, content)
    start = len(content) - 16
    assert list(read_header(path).values()) == [
        TensorInfo("early", "I32", (), path, start, 4),
        TensorInfo("late", "BF16", (2, 3), path, start + 4, 12),
        TensorInfo("none", "F64", (0, 9), path, start + 16, 0),
    ]


@pytest.mark.parametrize("header", [{}, {"__metadata__": {}}, {"__metadata__": {"format": "pt"}}])
def test_read_header_accepts_a_file_without_tensors(tmp_path: Path, header: object) -> None:
    assert read_header(written(tmp_path, packed(header, 0))) == {}


def test_read_header_reads_what_the_reference_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(3, 2, dtype=dtype) for name, dtype in TORCH.items()}, path)
    found = read_header(path)
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: n for n in TORCH}
    assert all(t.shape == (3, 2) and t.nbytes == 6 * ITEMSIZE[t.dtype] for t in found.values())


def test_every_dtype_has_torchs_item_size() -> None:
    assert TORCH.keys() == ITEMSIZE.keys() == TORCH_NAMES.keys()
    for name, dtype in TORCH.items():
        assert (dtype.itemsize, str(dtype)) == (ITEMSIZE[name], f"torch.{TORCH_NAMES[name]}")


def entry(
    dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)
) -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def pair(first: tuple[int, int], second: tuple[int, int]) -> dict[str, object]:
    """Two tensors of bytes at the given offsets."""
    return {
        name: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for name, (begin, end) in {"a": first, "b": second}.items()
    }


MALFORMED = {
    "empty file": (b"", "only 0 bytes"),
    "length word cut": (b"\x08\0\0\0", "only 4 bytes"),
    "header cut": (packed(entry())[:20], "claims .* cut short"),
    "huge length": (b"\xff" * 8 + b"{}", "claims 18446744073709551615 bytes"),
    "length above the limit": ((MAX_HEADER + 1).to_bytes(8, "little") + b"{}", "claims 100000001"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "git lfs pull",
    ),
    "zero length": (bytes(8), "begins with b'' instead"),
    "not an object": (packed(b"[1, 2]"), "begins with b.* instead"),
    "space first": (packed(b" {}", 0), "begins with b' {}' instead"),
    "not JSON": (packed(b"{oops}"), "not valid JSON"),
    "cut JSON": (packed(b'{"w": {"dtype"'), "not valid JSON"),
    "two objects": (packed(b"{}{}"), "not valid JSON"),
    "not UTF-8": (packed(b'{"\xff": 1}'), "not valid JSON.*utf-8"),
    "half a surrogate pair": (packed(b'{"\\ud800": 1}'), "not valid JSON.*surrogates"),
    "nested too deeply": (packed(b'{"w":' + b"[" * 100_000), "nested too deeply"),
    "huge number": (packed(b'{"w":' + b"9" * 5000 + b"}"), "not valid JSON.*4300"),
    "duplicate tensor": (packed(b'{"w": 1, "w": 1}'), "'w' occurs 2 times"),
    "duplicate field": (packed(b'{"w": {"dtype": "F32", "dtype": "F16"}}'), "'dtype' occurs 2"),
    "metadata a list": (packed({"__metadata__": []}, 0), "__metadata__ must map"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}}, 0), "must map names to texts"),
    "tensor a number": (packed({"w": 3}), "'w': expected dtype, shape and data_offsets, found 3"),
    "tensor null": (packed({"w": None}), "'w': expected dtype"),
    "no dtype": (packed({"w": {"shape": [2], "data_offsets": [0, 8]}}), "unknown dtype None"),
    "dtype a list": (packed(entry(dtype=["F32"])), r"unknown dtype \['F32'\]"),
    "unknown dtype": (packed(entry(dtype="F4")), "unknown dtype 'F4'; known are BOOL"),
    "torch's dtype": (packed(entry(dtype="float32")), "unknown dtype 'float32'"),
    "no shape": (packed({"w": {"dtype": "F32", "data_offsets": [0, 8]}}), "shape None is not"),
    "shape a number": (packed(entry(shape=2)), "shape 2 is not a list of sizes"),
    "negative size": (packed(entry(shape=[-2])), r"shape \[-2\] is not"),
    "two negative sizes": (packed(entry(shape=[-1, -2])), r"shape \[-1, -2\] is not"),
    "size a float": (packed(entry(shape=[2.0])), r"shape \[2.0\] is not"),
    "size a boolean": (packed(entry(shape=[True, 2])), r"shape \[True, 2\] is not"),
    "size a text": (packed(entry(shape=["2"])), r"shape \['2'\] is not"),
    "size beyond 63 bits": (packed(entry(shape=[2**63])), "is not a list of sizes"),
    "too many dimensions": (packed(entry(shape=[1] * 65)), "is not a list of sizes"),
    "sizes that wrap around": (
        packed(entry(shape=[2**62, 4, 2])),
        "but data_offsets .0, 8. span 8",
    ),
    "no offsets": (packed({"w": {"dtype": "F32", "shape": [2]}}), "data_offsets None are not"),
    "one offset": (packed(entry(offsets=[8])), r"data_offsets \[8\] are not"),
    "three offsets": (packed(entry(offsets=[0, 8, 8])), "are not .begin, end."),
    "offsets backwards": (packed(entry(offsets=[8, 0])), r"data_offsets \[8, 0\] are not"),
    "negative offset": (packed(entry(offsets=[-8, 0])), r"data_offsets \[-8, 0\] are not"),
    "offset a text": (packed(entry(offsets=["0", "8"])), "are not .begin, end."),
    "offset a boolean": (packed(entry(offsets=[False, 8])), "are not .begin, end."),
    "shape and bytes differ": (packed(entry(shape=[3])), r"\[3\] takes 12 bytes, but .* span 8"),
    "beyond the file": (packed(entry(shape=[4], offsets=[0, 16])), "end at byte .*cut short"),
    "far beyond": (packed(entry(shape=[2], offsets=[2**62, 2**62 + 8])), "leaves a hole before it"),
    "data cut by a byte": (packed(entry(), 7), "cut short"),
    "a byte too many": (packed(entry(), 9), "longer than its header says"),
    "data without tensors": (packed({}, 8), "longer than its header says"),
    "hole at the start": (packed(pair((1, 4), (4, 8))), "'a' leaves a hole before it"),
    "hole between": (packed(pair((0, 4), (5, 8))), "'b' leaves a hole before it"),
    "overlap": (packed(pair((0, 5), (4, 8))), "'b' overlaps the tensor before"),
    "the same bytes twice": (packed(pair((0, 8), (0, 8))), "'b' overlaps the tensor before"),
    "one inside another": (packed(pair((0, 8), (2, 4))), "'b' overlaps the tensor before"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_read_header_refuses(tmp_path: Path, case: str) -> None:
    content, message = MALFORMED[case]
    with pytest.raises(StudioError, match=message) as told:
        read_header(written(tmp_path, content))
    assert "model.safetensors" in str(told.value) and len(str(told.value)) < 800


def test_read_header_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match="cannot be read .No such file"):
        read_header(tmp_path / "model.safetensors")
    with pytest.raises(StudioError, match="cannot be read .Is a directory"):
        read_header(tmp_path)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with up to four places changed, dropped, doubled or cut off."""
    damage = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damage) + 1)
        match rng.randrange(6):
            case 0:
                damage[at : at + 1] = rng.randbytes(1)
            case 1 | 2:
                damage[at : at + 1] = bytes([rng.choice(b'0123456789-.eE"[]{},: ntf')])
            case 3:
                del damage[at : at + rng.randint(1, 8)]
            case 4:
                damage[at:at] = damage[at : at + rng.randint(1, 40)]
            case 5:
                del damage[at:]
    return bytes(damage)


@pytest.mark.parametrize("seed", range(40))
def test_read_header_survives_fuzzing(tmp_path: Path, seed: int) -> None:
    """A damaged file is refused with a StudioError or read as tensors that fill it."""
    rng = random.Random(seed)
    made = make_header([("a.weight", "BF16", (3, 4)), ("b", "F32", ()), ("c.bias", "U8", (5,))])
    text = made[8:].rstrip()
    outcomes = []
    for index in range(50):
        whole_file = index % 2 == 0  # else the header only, behind a length word that fits
        content = damaged(packed(text, 33), rng) if whole_file else packed(damaged(text, rng), 33)
        path = written(tmp_path, content)
        try:
            found = read_header(path)
        except StudioError as error:
            assert str(path) in str(error)
            outcomes.append("refused")
        else:
            assert all(t.nbytes == prod(t.shape) * ITEMSIZE[t.dtype] for t in found.values())
            data = sum(tensor.nbytes for tensor in found.values())
            assert data == len(content) - 8 - int.from_bytes(content[:8], "little")
            outcomes.append("read")
    assert outcomes.count("refused") > 25


names = st.text(min_size=1, max_size=30).filter(lambda name: name != "__metadata__")
tensors_of_a_file = st.lists(
    st.tuples(
        names.filter(lambda name: name.isprintable()),
        st.sampled_from(sorted(ITEMSIZE)),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
    ),
    unique_by=lambda tensor: tensor[0],
    max_size=12,
)


@given(tensors_of_a_file)
def test_make_header_and_read_header_agree(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[tuple[str, str, tuple[int, ...]]]
) -> None:
    header = make_header(tensors)
    assert len(header) % 4096 == 0
    sizes = [prod(shape) * ITEMSIZE[dtype] for _, dtype, shape in tensors]
    path = written(tmp_path_factory.mktemp("made"), header + bytes(sum(sizes)))
    found = read_header(path)
    assert [(t.name, t.dtype, t.shape) for t in (found[name] for name, _, _ in tensors)] == tensors
    starts = [len(header) + sum(sizes[:index]) for index in range(len(sizes))]
    assert [found[name].start for name, _, _ in tensors] == starts


def test_make_header_is_read_by_the_reference_library(tmp_path: Path) -> None:
    values = torch.arange(6, dtype=torch.float32)
    header = make_header([("été", "F32", (2, 3)), ("none", "F16", (0,))])
    path = written(tmp_path, header + values.numpy().tobytes())
    with safe_open(path, "pt") as reference:
        assert reference.metadata() == {"format": "pt"}
        assert torch.equal(reference.get_tensor("été"), values.view(2, 3))
        assert reference.get_tensor("none").shape == (0,)


def test_shown_is_short_whatever_the_value() -> None:
    for value in ("x" * 10**6, list(range(10**5)), {str(i): i for i in range(10**4)}, 10**4000):
        assert len(shown(value)) < 200
    assert shown("model.layers.79.self_attn.q_proj.weight") == repr(
        "model.layers.79.self_attn.q_proj.weight"
    )
    assert re.fullmatch(r"'\\ud800'", shown("\ud800"))


def test_headers_need_no_torch() -> None:
    code = "import sys, studio.weights.checkpoint; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout == "False\n", run.stderr
