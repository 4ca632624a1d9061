"""`python -m studio`: the command line."""

import os
import sys

from studio.cli import main

code = main(sys.argv[1:])
if code:
    sys.exit(code)
sys.stderr.flush()
os._exit(0)  # all is done and flushed; to take the interpreter apart would take 30 ms
