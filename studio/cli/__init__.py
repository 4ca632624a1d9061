"""The command line: parse, build, call. stdout is data, stderr is talk.

Exit codes: 0 done, 2 bad input, 130 cancelled, 141 nobody reads on. Each module here adds the
commands of one room.
"""

import argparse
import sys
from collections.abc import Sequence

from studio import __version__
from studio.cli import arena, generate, merge, plan, serve
from studio.cli.exits import (
    BAD_INPUT,
    CANCELLED,
    ENOUGH,
    cancel_on_signals,
    stdout_is_read,
    tether,
)
from studio.cli.progress import emit
from studio.errors import StudioError

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    cancel_on_signals()
    try:
        if getattr(options, "tethered", False):
            tether()
        code = int(options.run(options))
        sys.stdout.flush()  # here, where a closed pipe is expected
        return code
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        if getattr(options, "json", False):
            emit({"event": "error", "message": str(error), "error": str(error), **error.data})
        return BAD_INPUT
    except BrokenPipeError:
        if stdout_is_read():
            raise
        return ENOUGH
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        if getattr(options, "json", False):
            emit({"event": "cancelled"})
        return CANCELLED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studio", description=__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    merge.add_commands(commands)
    plan.add_commands(commands)
    generate.add_commands(commands)
    arena.add_commands(commands)
    serve.add_commands(commands)
    return parser
