"""CPU memory. glibc gives large blocks back to the system at once, and each step of a network pays for fresh pages again."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1


def keep_large_blocks() -> bool:
    """Lets glibc keep freed blocks for the next step; returns whether it took the settings (False on other C libraries).

    A training step at the full grid allocates gigabytes of activations; their page faults cost up to a third of its time.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
