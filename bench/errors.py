"""What stops a benchmark, told in one sentence."""


class BenchError(Exception):
    """What happened, which value, how to mend it. Shown without a traceback."""
