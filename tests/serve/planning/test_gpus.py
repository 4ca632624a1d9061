"""GPUs that are found, and GPUs that are thought of."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from studio.errors import StudioError
from studio.serve.planning.gpus import GIB, Gpu, bandwidth, found_here, imagine


class NVMLError(Exception):
    """The binding's own error."""


def driver(monkeypatch: pytest.MonkeyPatch, *, there: bool = True, count: int = 2) -> ModuleType:
    """The interface of nvidia-ml-py over a made-up driver."""

    def init() -> None:
        if not there:
            raise NVMLError("NVML Shared Library Not Found")

    module = ModuleType("pynvml")
    module.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=80 * GIB, free=79 * GIB),
        nvmlDeviceGetName=lambda handle: "NVIDIA H100 80GB HBM3" if handle else b"NVIDIA L4",
        nvmlDeviceGetCudaComputeCapability=lambda handle: (9, 0) if handle else (8, 9),
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_gpus_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    driver(monkeypatch)
    assert found_here().gpus == (
        Gpu(0, "NVIDIA L4", 80 * GIB, 79 * GIB, 8.9, 300e9),
        Gpu(1, "NVIDIA H100 80GB HBM3", 80 * GIB, 79 * GIB, 9.0, 3350e9),
    )


def test_no_driver_means_no_gpus_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver(monkeypatch, there=False)
    found = found_here()
    assert found.gpus == () and "NVML Shared Library Not Found" in found.why
    driver(monkeypatch, count=0)
    assert found_here().why == "the NVIDIA driver knows no GPU"
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    for driver_file, said in ((tmp_path, "nvidia-ml-py is missing"), (tmp_path / "x", "no NVIDIA")):
        monkeypatch.setattr("studio.serve.planning.gpus.DRIVER", driver_file)
        assert said in found_here().why


def test_a_driver_that_fails_while_it_is_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(handle: int) -> None:
        raise NVMLError("GPU is lost")

    driver(monkeypatch).__dict__["nvmlDeviceGetMemoryInfo"] = lost
    assert "does not answer (GPU is lost)" in found_here().why


@pytest.mark.parametrize(
    ("text", "count", "name", "gib"),
    [
        ("4x80", 4, "H100", 79.1),
        ("8×48 GB", 8, "A6000", 47.4),
        (" 2 x a100 ", 2, "A100", 79.1),
        ("1*141", 1, "H200", 139.8),
        ("3xrtx 6000 ada", 3, "RTX 6000 Ada", 47.4),
        ("8x24GiB", 8, "4090", 23.5),
    ],
)
def test_imagine(text: str, count: int, name: str, gib: float) -> None:
    gpus = imagine(text).gpus
    assert [(g.index, g.name, g.memory) for g in gpus] == [
        (index, name, round(gib * GIB)) for index in range(count)
    ]
    assert imagine(text).imagined


def test_imagine_no_gpu() -> None:
    assert imagine("cpu").gpus == () and imagine("cpu").imagined


@pytest.mark.parametrize("text", ["", "4", "x80", "0x80", "99x80", "4x81", "4x", "80"])
def test_imagine_refuses(text: str) -> None:
    with pytest.raises(StudioError, match="does not say which GPUs"):
        imagine(text)


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("NVIDIA A100-SXM4-80GB", 2039e9),
        ("NVIDIA GeForce RTX 4090", 1008e9),
        ("NVIDIA L40S", 864e9),
        ("NVIDIA RTX A6000", 768e9),
        ("NVIDIA RTX 6000 Ada Generation", 960e9),
        ("NVIDIA GeForce GTX 1080", 0.0),
    ],
)
def test_bandwidth(name: str, speed: float) -> None:
    assert bandwidth(name) == speed
