"""The embedded engine's process: `python -m studio.serve.embedded --model DIR --uds PATH`."""

import argparse
import gc
import os
import sys
from pathlib import Path

from studio.errors import StudioError
from studio.serve.gate import MODEL_VARIABLE, Residency

SMALL = 64 << 20  # bytes


def main() -> int:
    """Load the model and serve it until a signal comes."""
    gc.set_threshold(50_000)  # imports make much that stays: looking through it took 0.7 s
    add = (parser := argparse.ArgumentParser(prog="embedded", description=__doc__)).add_argument
    add("--model", type=Path, required=True)
    add("--served-model-name", required=True)
    add("--dtype", required=True)
    add("--max-model-len", type=int)
    add("--uds")
    add("--host", default="127.0.0.1")
    add("--port", type=int)
    parsed = parser.parse_args()
    if not parsed.model.is_dir():
        print(f"StudioError: {parsed.model}: there is no such folder", flush=True)
        return 1
    print(f"Loading weights from {parsed.model}", flush=True)
    import torch
    import uvicorn

    from studio.serve.embedded.model import Model
    from studio.serve.embedded.server import build

    try:
        model = Model(parsed.model, parsed.dtype, parsed.max_model_len)
        if model.nbytes < SMALL:
            # Threads that wait for one another at each small step cost more than they bring,
            # many times more where something else runs beside.
            torch.set_num_threads(1)
        residency = Residency(os.environ[MODEL_VARIABLE], str(parsed.model))
        app = build(model, residency, parsed.served_model_name)
    except StudioError as error:
        print(f"StudioError: {error}", flush=True)
        return 1
    os.umask(0o077)
    uvicorn.run(
        app, uds=parsed.uds, host=parsed.host, port=parsed.port or 8000, log_level="warning",
        lifespan="off", timeout_graceful_shutdown=1,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
