"""The studio, or one of its commands, as on a machine with one GPU of 24 GB that nobody uses.

one_gpu.py app            the page
one_gpu.py COMMAND …      python -m studio COMMAND …
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import app
from studio.cli import main
from studio.serve.planning import gpus
from studio.serve.processes import fleet
from studio.serve.processes.vllm_command import Machine
from studio.ui import app as page
from studio.ui.serve import plans

HERE = replace(gpus.imagine("1x24"), imagined=False)


def prepare() -> None:
    """Put the GPU where the studio looks for one, and let it use this file for its commands."""
    for module in (gpus, fleet, plans):
        module.found_here = lambda: HERE  # type: ignore[attr-defined]
    fleet.this_machine = lambda: Machine(has_gpu=True, cores=2)  # type: ignore[attr-defined]
    build = page.build
    page.build = lambda settings: build(settings, (sys.executable, __file__))


if __name__ == "__main__":
    prepare()
    sys.exit(app.main() if sys.argv[1] == "app" else main(sys.argv[1:]))
