"""Memory that is freed and soon wanted again."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 2**30
KEPT_BYTES_BEFORE = 2**25  # the most that older versions take


def keep_freed_memory() -> None:
    """glibc hands large blocks back once they are freed, and every batch waits for new pages; let it keep them.

    For processes that do the same again and again on few threads, each of which keeps its own. Nothing is done where
    the C library is another one.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # First whether blocks are kept at all: the other option alone would freeze that at 128 KiB.
        if any(libc.mallopt(M_MMAP_THRESHOLD, size) for size in (KEPT_BYTES, KEPT_BYTES_BEFORE)):
            libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
