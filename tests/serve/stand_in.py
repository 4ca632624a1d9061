"""An engine's processes in miniature: a server with a stubborn worker, and shared memory.

python stand_in.py MODE      polite | stubborn | dies | half
"""

import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def worker() -> None:
    """Ignore every polite request, in a session of its own, holding shared memory."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path = Path(f"/dev/shm/stand_in_{os.getpid()}")
    path.write_bytes(b"x" * 4096)
    with path.open("r+b") as file:
        held = mmap.mmap(file.fileno(), 4096)
        print(f"worker {os.getpid()} holds {path}", flush=True)
        time.sleep(600)
        held.close()


def main() -> None:
    """Start a worker, then live as the mode says."""
    mode = sys.argv[1]
    if mode == "worker":
        worker()
    child = subprocess.Popen([sys.executable, __file__, "worker"], start_new_session=True)
    print(f"server {os.getpid()} started {child.pid} as {mode}", flush=True)
    if mode == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if mode == "dies":
        time.sleep(1)
        sys.exit(3)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        if mode == "polite":
            child.kill()
        print("server says goodbye", flush=True)


main()
