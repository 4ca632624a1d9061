"""The two states of the page cache that runs begin in."""

import os
from pathlib import Path

DROP = Path("/proc/sys/vm/drop_caches")


def warm(files: list[Path]) -> None:
    """Reads every byte once, so that what fits into memory is there."""
    buffer = bytearray(4 << 20)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop_all() -> bool:
    """Drops every clean page, programs included; False where that is not permitted."""
    os.sync()
    try:
        DROP.write_text("3")
    except OSError:
        return False
    return True


def forget(files: list[Path]) -> None:
    """Asks the kernel to drop these files' pages; it may decline, which `disk read` then shows."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def cold(files: list[Path]) -> str:
    """Empties the cache as far as permitted; returns how."""
    if drop_all():
        return "the whole cache dropped (drop_caches), programs start from disk too"
    forget(files)
    return "only the inputs dropped (fadvise): drop_caches is not permitted here"
