"""Memory that is freed and soon wanted again."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """glibc hands large blocks back once they are freed, and every batch waits for new pages; let it keep them.

    For processes that do the same again and again on few threads, each of which keeps its own. Nothing is done where
    the C library is another one.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(option, KEPT_BYTES)
