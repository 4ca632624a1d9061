"""A stand-in for `python -m studio` that obeys the same contract and merges nothing.

What it does depends on the name of the result: `slow…` takes a minute, `crash…` dies, `bad…`
refuses the recipe, `stubborn…` ignores signals, `doubtful…` is checked for a minute, anything else
is done in half a second. `preview` stops half way until there is a file `go` in the data folder;
then the real one measures.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

TOTAL = 1_000_000


def emit(**event: object) -> None:
    try:
        os.write(1, f"{json.dumps(event)}\n".encode())
    except BrokenPipeError:
        pass  # only the tether may end it, not the loss of its listener


def cancelled(*_: object) -> None:
    emit(event="cancelled")
    os._exit(130)


def end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    cancelled()


def merge(recipe: Path, out: Path) -> None:
    assert recipe.read_text()
    assert "STUDIO_OWNER_TOKEN" not in os.environ
    out.with_name(out.name + ".pid").write_text(str(os.getpid()))
    if out.name.startswith("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, cancelled)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    if out.name.startswith("bad"):
        emit(event="error", message="demo/models/x: not a folder")
        sys.exit(2)
    steps = 5 if not out.name.startswith(("slow", "stubborn")) else 600
    for step in range(steps + 1):
        done = TOTAL * step // steps
        emit(event="progress", phase="merge", done=done, total=TOTAL, tensor=f"t{step}", seconds=0)
        time.sleep(0.1)
        if out.name.startswith("crash") and step == 2:
            print("Traceback: the disk is on fire", file=sys.stderr, flush=True)
            os._exit(1)
    out.mkdir()
    (out / "merge-report.json").write_text("{}")
    emit(event="done", path=str(out), seconds=0.5)


def check(out: Path) -> None:
    threading.Thread(target=end_with_stdin, daemon=True).start()
    if out.name.startswith("doubtful"):
        out.parent.mkdir(exist_ok=True)
        out.with_name(out.name + ".pid").write_text(str(os.getpid()))
        time.sleep(60)
    if out.name.startswith("bad"):
        emit(event="error", error="2 problems:\n- one\n- another")
        sys.exit(2)
    emit(sources=[], bytes_read=1, bytes_written=2, dtype="bfloat16", layers=4, tensors=39,
         shards=1, peak_memory=3, seconds=0.1, warnings=["mind the step"], notes=[])  # fmt: skip


def preview() -> None:
    signal.signal(signal.SIGTERM, cancelled)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    while not (Path(os.environ["STUDIO_DATA"]) / "go").exists():
        emit(event="progress", phase="measure", done=TOTAL // 2, total=TOTAL)
        time.sleep(0.05)
    os.execv(sys.executable, [sys.executable, "-m", "studio", *sys.argv[1:]])


if __name__ == "__main__":
    if sys.argv[1] == "preview":
        preview()
    target = Path(sys.argv[sys.argv.index("--out") + 1])
    merge(Path(sys.argv[2]), target) if sys.argv[1] == "merge" else check(target)
