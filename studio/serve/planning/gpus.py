"""The GPUs of this machine, as the driver tells them, and GPUs that are only thought of."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import StudioError

GIB = 2**30
MOST = 64
DRIVER = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU. `memory` and `free` in bytes; `bandwidth` of its memory in bytes a second, 0 where it
    is not known; `capability` as CUDA counts, 8.9 for Ada.
    """

    index: int
    name: str
    memory: int
    free: int
    capability: float
    bandwidth: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: `gpus`, or none and in `why` the reason. `imagined`: "what if"."""

    gpus: tuple[Gpu, ...]
    why: str = ""
    imagined: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A GPU on the market: GiB that a program can see, capability, memory bandwidth in GB/s."""

    gib: float
    capability: float
    gb_per_second: float


# Usable memory as drivers report it with ECC on; bandwidth from the makers' data sheets.
MARKET = {
    "H100": Model(79.1, 9.0, 3350),
    "A100": Model(79.1, 8.0, 2039),
    "A100-40": Model(39.4, 8.0, 1555),
    "H200": Model(139.8, 9.0, 4800),
    "B200": Model(178.4, 10.0, 8000),
    "L40S": Model(44.4, 8.9, 864),
    "A6000": Model(47.4, 8.6, 768),
    "RTX 6000 Ada": Model(47.4, 8.9, 960),
    "4090": Model(23.5, 8.9, 1008),
    "3090": Model(23.6, 8.6, 936),
    "5090": Model(31.4, 12.0, 1792),
    "L4": Model(22.0, 8.9, 300),
    "A10": Model(22.0, 8.6, 600),
    "T4": Model(14.6, 7.5, 320),
}
# What a plain number of gigabytes stands for.
BY_SIZE = {"80": "H100", "48": "A6000", "24": "4090", "40": "A100-40", "141": "H200", "180": "B200"}
_WRITTEN = re.compile(r"\s*(\d+)\s*[x×*]\s*(.+?)\s*(?:gb|gib)?\s*", re.IGNORECASE)


def imagine(text: str) -> Found:
    """GPUs from "4x80", "8×48 GB" or "2xA100"; "cpu" and "none" for a machine without.

    Raises StudioError for what is none of these.
    """
    if text.strip().lower() in ("cpu", "none", "0"):
        return Found((), "as if there were no GPUs", imagined=True)
    written = _WRITTEN.fullmatch(text)
    names = {name.lower(): name for name in MARKET}
    kind = written[2].lower() if written else ""
    name = BY_SIZE.get(kind) or names.get(kind)
    if not written or name is None or not 1 <= int(written[1]) <= MOST:
        raise StudioError(
            f'"{text}" does not say which GPUs; write a number up to {MOST} and a size or a name, '
            f"such as 4x80 or 2xA100: known are {', '.join([*BY_SIZE, *MARKET])}; or cpu"
        )
    model = MARKET[name]
    memory = round(model.gib * GIB)
    return Found(
        tuple(
            Gpu(index, name, memory, memory, model.capability, model.gb_per_second * 1e9)
            for index in range(int(written[1]))
        ),
        imagined=True,
    )


def found_here() -> Found:
    """The GPUs of this machine by NVML; none, with the reason, where there is no driver."""
    try:
        import pynvml  # of nvidia-ml-py
    except ImportError:
        if not DRIVER.exists():
            return Found((), "no NVIDIA GPU here")
        return Found((), "no GPUs can be asked for: the package nvidia-ml-py is missing")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Found((), f"no NVIDIA GPU here: {error}")
    try:
        count = pynvml.nvmlDeviceGetCount()
        gpus = tuple(_read(pynvml, index) for index in range(count))
    except pynvml.NVMLError as error:
        return Found((), f"the NVIDIA driver does not answer ({error}); see what nvidia-smi says")
    finally:
        pynvml.nvmlShutdown()
    return Found(gpus, "" if gpus else "the NVIDIA driver knows no GPU")


def _read(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    name = name.decode() if isinstance(name, bytes) else str(name)
    return Gpu(
        index, name, int(memory.total), int(memory.free), major + minor / 10, bandwidth(name)
    )


def bandwidth(name: str) -> float:
    """Bytes a second of the GPU of this full name, 0.0 where it is not on the list."""
    words = re.split(r"[\s-]+", name.upper())
    for known, model in MARKET.items():
        if all(word in words for word in known.upper().split()):
            return model.gb_per_second * 1e9
    return 0.0
