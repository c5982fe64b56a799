"""Memory that this process holds and does not use.

glibc's allocator keeps freed memory for each thread that asked for some: in a server whose threads parse and tokenise
large requests that grew by 10 MB a minute, while the memory in use stayed the same. So it is given back now and then.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

__all__ = ["heap", "release"]


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks")
    ] + [("keepcost", ctypes.c_size_t)]


@functools.cache
def _function(name: str, result: Any) -> Any:
    """A function of the C library; None where it has no such function (macOS, musl, older glibc)."""
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
    found.restype = result
    return found


def release() -> None:
    """Give memory that is free in this process back to the system. It may take some milliseconds; other threads run."""
    if (trim := _function("malloc_trim", ctypes.c_int)) is not None:
        trim(ctypes.c_size_t(0))


def heap() -> tuple[int, int] | None:
    """Bytes of the C library's heap that are in use, and that are free; None where it does not tell."""
    told = _function("mallinfo2", _Heap)
    if told is None:
        return None
    info = told()
    return info.uordblks + info.hblkhd, info.fordblks
