"""How a command ends: exit codes, and signals that cancel."""

import argparse
import os
import select
import signal
import sys
import threading
from types import FrameType

BAD_INPUT, CANCELLED = 2, 130
ENOUGH = 141  # 128 + SIGPIPE: nobody reads what is written
CANCELLING = (signal.SIGINT, signal.SIGTERM)


def cancel_on_signals() -> None:
    """Let the signals that are not ignored raise KeyboardInterrupt, once."""
    for number in CANCELLING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _cancel)


def _cancel(number: int, frame: FrameType | None) -> None:
    """Stop the work as by Ctrl-C, once: a second signal must not disturb the cleaning up."""
    for each in CANCELLING:
        signal.signal(each, lambda number, frame: None)  # SIG_IGN complains of pending ones
    raise KeyboardInterrupt


def stdout_is_read() -> bool:
    """Whether somebody still takes what is written; `| head` has had enough of it early.

    If not, what is left goes nowhere, so that the end of the process does not stumble over it.
    """
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in pipe.poll(0)):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def add_tether(command: argparse.ArgumentParser) -> None:
    """Let the command be tied to the process that starts it, as the studio ties its own."""
    command.add_argument(
        "--tethered", action="store_true", help="cancel when standard input closes"
    )


def tether() -> None:
    """Cancel, from now on, when whoever holds the other end of standard input is gone."""
    threading.Thread(target=_cancel_at_end_of_input, daemon=True).start()


def _cancel_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # a shell's background jobs ignore SIGINT
