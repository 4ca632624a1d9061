"""`python -m studio`: the command line."""

import os
import sys

from studio.cli import main

for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:  # closed by the caller: no file of ours may take its number
        setattr(sys, name, open(os.devnull, mode))
code = main(sys.argv[1:])
if code:
    sys.exit(code)
sys.stderr.flush()
os._exit(0)  # all is done and flushed; to take the interpreter apart would take 30 ms
