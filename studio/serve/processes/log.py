"""What an engine's log tells: how far a start is, and why it failed."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
MOST_READ = 2**20


def read(path: Path, limit: int = MOST_READ) -> str:
    """The last `limit` bytes of a log, without colours; empty if there is none yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            data = file.read()
    except FileNotFoundError:
        return ""
    return ANSI.sub("", data.decode("utf-8", errors="replace")).replace("\r", "\n")


def tail(path: Path, lines: int = 200) -> list[str]:
    """The last lines of a log."""
    return [line for line in read(path, 256 * lines).splitlines() if line.strip()][-lines:]


DOWNLOADING = "downloading"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a start is: what it does, and of the weights `done` of `total` (0 of 0: unknown).

    While it is `DOWNLOADING`, these are bytes.
    """

    phase: str = "starting"
    done: int = 0
    total: int = 0


# In the order in which a start goes through them; the last one that occurs counts.
_PHASES = (
    ("starting vLLM", re.compile(r"vLLM API server version|Starting vLLM|non-default args")),
    ("starting the workers", re.compile(r"EngineCore|Initializing a V1 LLM engine|world_size=")),
    ("loading weights", re.compile(r"Starting to load model|Loading weights from|studio: weights")),
    ("measuring memory", re.compile(r"Loading weights took|Model loading took")),
    ("compiling", re.compile(r"Dynamo bytecode|Compiling a graph")),
    ("making room for the cache", re.compile(r"KV cache size|Available KV cache memory")),
    ("capturing graphs", re.compile(r"Capturing CUDA graph|Graph capturing")),
    ("opening the door", re.compile(r"init engine .* took|Application startup complete")),
)
_COUNTED = re.compile(r"studio: weights (\d+) of (\d+)|checkpoint shards:.*?\| *(\d+)/(\d+)")


def progress(text: str) -> Progress:
    """How far the start is that wrote this log."""
    phase = next((name for name, sign in reversed(_PHASES) if sign.search(text)), "starting")
    counted = _COUNTED.findall(text)
    if phase != "loading weights" or not counted:
        return Progress(phase)
    done, total = (int(value) for value in counted[-1] if value)
    return Progress(phase, done, total)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an engine ended: a sentence for people, and the line of the log it comes from."""

    text: str
    line: str = ""


def _device_full(found: re.Match[str]) -> str:
    return (
        "the GPU's memory is in use by something else: stop what uses it (another engine?), or "
        "lower gpu_memory_utilization"
    )


_KNOWN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"StudioError: (.*)"), lambda m: m[1]),
    (
        re.compile(r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)"),
        lambda m: (
            f"the model's {m[1]} attention heads cannot be shared evenly by {m[2]} ranks; use "
            f"a tensor parallel size that divides {m[1]}"
        ),
    ),
    (
        re.compile(r"max_model_len \((\d+)\) is greater than the derived max_model_len \D*=(\d+)"),
        lambda m: (
            f"a context of {m[1]} tokens is longer than the {m[2]} the model was made for; "
            f"set max_model_len to {m[2]} or less"
        ),
    ),
    (
        re.compile(r"estimated maximum model length is (\d+)"),
        lambda m: (
            f"the memory left for the cache holds {m[1]} tokens, less than one full context; "
            f"set max_model_len to {m[1]} or less, or use more GPUs"
        ),
    ),
    (
        re.compile(r"Weight files referenced in index but missing: \{(.*)\}"),
        lambda m: f"the model's index names files that are not there: {m[1]}; download it again",
    ),
    (
        re.compile(r"No available memory for the cache blocks"),
        lambda m: (
            "the weights leave no memory for the cache; use more GPUs, on-line quantisation, "
            "or a higher gpu_memory_utilization"
        ),
    ),
    (re.compile(r"Free memory on device .* is less than desired"), _device_full),
    (re.compile(r"Error in memory profiling"), _device_full),
    (
        re.compile(r"OutOfMemoryError|CUDA out of memory"),
        lambda m: "out of GPU memory; use more GPUs, on-line quantisation, or a shorter context",
    ),
    (
        re.compile(r"MemoryError|can't allocate memory|Cannot allocate memory|std::bad_alloc"),
        lambda m: "out of memory on this machine; use a smaller model, or a smaller cache",
    ),
    (
        re.compile(r"exit code: -4\b|Illegal instruction"),
        lambda m: (
            "an instruction that this processor does not have: vLLM's CPU build was made for "
            "another one; use float32, or float16, instead of bfloat16"
        ),
    ),
    (
        re.compile(r"died unexpectedly \(exit code: -9\)"),
        lambda m: "a worker was killed from outside; often that means memory ran out",
    ),
    (
        re.compile(r"[Aa]ddress already in use"),
        lambda m: "another program took the engine's port; start it again",
    ),
    (
        re.compile(r"No module named '?vllm"),
        lambda m: "vLLM is not installed; install it, or use the embedded engine",
    ),
    (
        re.compile(r"error: unrecognized arguments: (.*)"),
        lambda m: f"this version of vLLM does not know {m[1]}; use the version in requirements.txt",
    ),
    (re.compile(r"Value error, (.*)"), lambda m: m[1].partition(" [type=")[0]),
)
_ANY = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception): .+)")
# Echoes of an error told before, and warnings, which may quote an error that never came.
_NO_CAUSE = (
    "See root cause above", "WorkerProc initialization failed", "EngineDeadError",
    "RuntimeError: Executor failed", "WARNING ",
)  # fmt: skip

# How vLLM tells that a process of its own is gone, where it knows no more; it may end with code 0.
_SILENT = (("a worker", "died unexpectedly"), ("the engine core", "EngineDeadError"))


def cause(text: str, code: int | None = None) -> Cause:
    """Why the engine that wrote this log ended by itself, with exit code `code`.

    The first line that names an error counts: later ones are its echoes in other processes.
    """
    lines = [line.strip() for line in text.splitlines()]
    errors = [line for line in lines if not any(mark in line for mark in _NO_CAUSE)]
    for sign, said in _KNOWN:
        for line in errors:
            if found := sign.search(line):
                return Cause(said(found), line)
    for line in errors:
        if found := _ANY.search(line):
            return Cause(found[1], line)
    for part, mark in _SILENT:
        if line := next((line for line in lines if mark in line), ""):
            return Cause(
                f"{part} ended without a word: killed from outside, or memory ran out", line
            )
    if code is not None and code in (-9, 137):
        return Cause("it was killed from outside; often that means memory ran out")
    how = f" with code {code}" if code is not None and code >= 0 else ""
    return Cause(f"it ended{how} and gave no reason; its last words are in the log")
