"""Memory that this process holds and does not use.

glibc's allocator has up to eight arenas for each processor, so that threads do not wait for each other, and keeps what
is freed in them: in a server whose threads parse and tokenise large requests that grew to 320 MB, while the memory in
use stayed the same. There are two kinds of it. Free pieces between others: `release` gives them back. And the end of an
arena, which no call gives back: only `free` does, beyond a limit, and glibc itself raises that limit to twice the
largest block that was ever freed, up to 64 MB for each arena. `bound` sets it.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

__all__ = ["bound", "heap", "release"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
_LARGE = 4 << 20
"""Bytes: the most that stays free at the end of an arena. Blocks of this size and more are mapped by themselves, and
gone when they are freed; to touch so much anew takes about a millisecond."""


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


def bound() -> None:
    """Bound what each thread's part of the heap keeps free, for good. Whoever has set such bounds in the environment
    (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`) keeps them.
    """
    named = any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"))
    if named or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    if (mallopt := _function("mallopt", ctypes.c_int)) is not None and heap() is not None:
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(option, _LARGE)


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
