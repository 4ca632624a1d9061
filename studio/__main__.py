"""`python -m studio`: the command line."""

import gc
import sys

from studio.cli import main

code = main(sys.argv[1:])
gc.freeze()  # a process about to end need not look for garbage among all it has loaded
sys.exit(code)
