"""What logs tell: how far a start is, and why it failed, in vLLM's own words."""

from pathlib import Path

import pytest

from studio.serve.processes.log import Cause, Progress, cause, progress, read, tail

ECHO = """(APIServer pid=9) RuntimeError: Engine core initialization failed. See root cause above.
(EngineCore pid=8) Exception: WorkerProc initialization failed due to an exception
"""
WORKER = "(Worker_TP0 pid=7) ERROR 11-24 20:00:00 [multiproc_executor.py:870] "


SERVER = "(APIServer pid=9) ERROR 11-25 14:14:25 [async_llm.py:906] vllm.v1.engine.exceptions."


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "  Value error, Total number of attention heads (8) must be divisible by tensor "
            "parallel size (3). [type=value_error, input_value=ArgsKwargs((), {",
            "8 attention heads cannot be shared evenly by 3 ranks",
        ),
        (
            "  Value error, User-specified max_model_len (4096) is greater than the derived "
            "max_model_len (max_position_embeddings=512 or model_max_length=None in model's",
            "a context of 4096 tokens is longer than the 512 the model was made for",
        ),
        (
            WORKER + "ValueError: To serve at least one request with the model's max seq len "
            "(4096), (1.25 GiB KV cache is needed, which is larger than the available KV cache "
            "memory (0.61 GiB). Based on the available memory, the estimated maximum model length "
            "is 2000. Try",
            "the memory left for the cache holds 2000 tokens",
        ),
        (
            WORKER + "FileNotFoundError: Weight files referenced in index but missing: "
            "{'/m/model-00002-of-00002.safetensors'}",
            "files that are not there: '/m/model-00002-of-00002.safetensors'; download it again",
        ),
        (
            WORKER + "studio.errors.StudioError: /m: 1 of 2 files of weights are missing: "
            "model-00002-of-00002.safetensors; download them",
            "/m: 1 of 2 files of weights are missing: model-00002-of-00002.safetensors;",
        ),
        (
            WORKER + "ValueError: No available memory for the cache blocks. Try increasing",
            "the weights leave no memory for the cache",
        ),
        (
            WORKER + "ValueError: Free memory on device cuda:0 (10/80 GiB) on startup is less than "
            "desired GPU memory utilization (0.92, 73 GiB).",
            "memory is in use by something else",
        ),
        (WORKER + "torch.OutOfMemoryError: CUDA out of memory. Tried", "out of GPU memory"),
        ("MemoryError", "out of memory on this machine"),
        (
            "(EngineCore pid=8) ERROR Worker proc VllmWorker-1 died unexpectedly (exit code: -4)",
            "an instruction that this processor does not have",
        ),
        (
            "(EngineCore pid=8) ERROR Worker proc VllmWorker-1 died unexpectedly (exit code: -9)",
            "a worker was killed from outside",
        ),
        (
            "(EngineCore pid=8) ERROR Worker proc VllmWorker-1 died unexpectedly (exit code: None)"
            "\n(EngineCore pid=8) ERROR [core.py:1512] RuntimeError: Executor failed.",
            "a worker ended without a word: killed from outside, or memory ran out",
        ),
        ("OSError: [Errno 98] Address already in use", "another program took the engine's port"),
        ("ModuleNotFoundError: No module named 'vllm'", "vLLM is not installed"),
        ("entry.py: error: unrecognized arguments: --nosuch", "does not know --nosuch"),
        (WORKER + "StudioError: /m: no weights; get them", "/m: no weights; get them"),
        ("  Value error, something new [type=value_error, x]", "something new"),
        (WORKER + "KeyError: 'model.layers.9'", "KeyError: 'model.layers.9'"),
    ],
)
def test_cause_is_pulled_out_of_the_log(line: str, text: str) -> None:
    found = cause(f"INFO nothing\n{ECHO}{line}\n{ECHO}", 1)
    assert text in found.text
    assert found.line == line.strip().partition("\n")[0]


def test_cause_is_the_first_error_and_not_its_echo() -> None:
    text = f"{WORKER}KeyError: 'first'\n{WORKER}ValueError: second\n{ECHO}"
    assert cause(text).text == "KeyError: 'first'"


def test_cause_is_not_a_warning() -> None:
    warning = "(APIServer pid=9) WARNING [x.py:1] errors like `OSError: [Errno 24] Too many open"
    assert cause(f"{warning}\n{WORKER}KeyError: 'k'").text == "KeyError: 'k'"
    assert "Errno 24" not in cause(warning).text


def test_cause_without_a_word() -> None:
    assert cause("all is well", 3) == Cause(
        "it ended with code 3 and gave no reason; its last words are in the log"
    )
    assert "killed from outside" in cause("", 137).text
    dead = f"INFO well\n{SERVER}EngineDeadError: EngineCore encountered an issue.\nINFO bye"
    assert cause(dead, 0).text.startswith("the engine core ended without a word")


LOADING = "INFO [worker.py] Starting to load model /m...\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Progress("starting")),
        ("INFO vLLM API server version 0.32.0", Progress("starting vLLM")),
        (LOADING, Progress("loading weights")),
        (
            LOADING + "studio: weights 36 of 723\nstudio: weights 72 of 723\n",
            Progress("loading weights", 72, 723),
        ),
        (
            LOADING + "Loading safetensors checkpoint shards:  20% Completed | 3/15 [00:02<00:09",
            Progress("loading weights", 3, 15),
        ),
        (
            LOADING + "studio: weights 9 of 9\nLoading weights took 3 s",
            Progress("measuring memory"),
        ),
        (LOADING + "GPU KV cache size: 491,000 tokens", Progress("making room for the cache")),
        ("INFO: Application startup complete.", Progress("opening the door")),
    ],
)
def test_progress_of_a_start(text: str, expected: Progress) -> None:
    assert progress(text) == expected


def test_log_is_read_from_its_end_without_colours(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert (read(log), tail(log)) == ("", [])
    log.write_bytes(b"old\n" * 100 + b"\x1b[0;36m(pid)\x1b[0m one\n\n10%\r20%\nl\xffst\n")
    assert tail(log, 4) == ["(pid) one", "10%", "20%", "l�st"]
    assert read(log, 5) == "l�st\n"
