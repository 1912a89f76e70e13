"""The memory of this machine."""

import os


def memory_here() -> int:
    """Bytes of memory that this machine has, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
