"""How the C library treats memory that a training step frees."""

import ctypes

# glibc, malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
# Never.
_OFF = -1


def keep_freed_memory() -> None:
    """Keep what a step frees for the next one instead of returning it to the kernel, which has to clear it again.

    Six layers on two cores learn 1.5 times as many texts a second by it, two layers on one core 1.2 times. For the rest
    of the process; without effect where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _OFF)
