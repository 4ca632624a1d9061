"""`python -m studio`: the command line."""

import gc
import os
import sys

from studio.cli import main

for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:  # closed by the caller: no file of ours may take its number
        setattr(sys, name, open(os.devnull, mode))
gc.set_threshold(50_000)  # imports make much that stays: to look through it often takes 10 ms
code = main(sys.argv[1:])
if code:
    sys.exit(code)
sys.stderr.flush()
os._exit(0)  # all is done and flushed; to take the interpreter apart would take 30 ms
