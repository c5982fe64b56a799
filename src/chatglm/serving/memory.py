"""Gives memory back that this process holds and does not use.

glibc's allocator has up to eight arenas for each processor, so that threads do not wait for each other, and keeps what
is freed in them: in a server whose threads parse and tokenise large requests that grew to 320 MB, while the memory in
use stayed the same. There are two kinds of unused memory. Free pieces between others: `release` gives them back. And
the end of an arena, up to 64 MB of each, which no call gives back: only `free` does, in a thread of that arena and
beyond a limit. So `Threads` lower the limit for a moment when a piece of work is done. Otherwise it stays high: an
engine's thread frees tens of MB in each step, and would have to ask for them again.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from chatglm.serving.bodies import LARGE
from chatglm.serving.records import current

__all__ = ["LoopThreads", "Threads", "heap", "release"]

P = ParamSpec("P")
T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Constants of glibc's malloc.h."""
_MAPPED, _MOST, _LEFT = 32 << 20, 64 << 20, 1 << 20
"""Bytes: larger blocks are mapped separately, and returned when they are freed; free bytes that stay at the end of an
arena; the same after the work of one of `Threads`. glibc reaches the first two values by itself."""
_PIECE = 128 << 10
"""Bytes of a block that is freed: from 64 KiB on, glibc then checks the end of the arena."""
_LARGE_AT_ONCE = 2
"""Large requests at a time. Tokenising a megabyte takes up to 60 MB."""


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


class Threads(ThreadPoolExecutor):
    """Threads that give back what their work has freed at the end of their arenas. Where glibc's bounds are set in the
    environment (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `GLIBC_TUNABLES`), those hold instead."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(_and_give_back, fn, *args, **kwargs)


class LoopThreads(Threads):
    """The threads of a server's event loop. Large requests have a few of their own: so what they need at a time is
    bounded for any number of requests, and small ones do not wait for them."""

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, name)
        self._large = Threads(_LARGE_AT_ONCE, f"{name}-large")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if current().body > LARGE:
            return self._large.submit(fn, *args, **kwargs)
        return super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._large.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)


def _and_give_back(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return work(*args, **kwargs)
    finally:
        if (calls := _calls()) is not None:
            mallopt, malloc, free = calls
            mallopt(_M_TRIM_THRESHOLD, _LEFT)
            free(malloc(_PIECE))
            mallopt(_M_TRIM_THRESHOLD, _MOST)


@functools.cache
def _calls() -> tuple[Any, Any, Any] | None:
    """glibc's `mallopt`, `malloc` and `free`; None for another library, or if the environment sets its limits."""
    named = any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"))
    if named or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or heap() is None:
        return None
    mallopt, malloc, free = (
        _function(name, result)
        for name, result in (("mallopt", ctypes.c_int), ("malloc", ctypes.c_void_p), ("free", None))
    )
    mallopt.argtypes, malloc.argtypes, free.argtypes = [ctypes.c_int] * 2, [ctypes.c_size_t], [ctypes.c_void_p]
    mallopt(_M_MMAP_THRESHOLD, _MAPPED)
    mallopt(_M_TRIM_THRESHOLD, _MOST)  # from now on glibc raises neither by itself
    return mallopt, malloc, free


def release() -> None:
    """Give memory that is free in this process back to the system. It may take some milliseconds; other threads run."""
    if (trim := _function("malloc_trim", ctypes.c_int)) is not None:
        trim(ctypes.c_size_t(0))


def heap() -> tuple[int, int] | None:
    """Bytes of the C library's heap that are in use, and that are free; None if they are unknown."""
    told = _function("mallinfo2", _Heap)
    if told is None:
        return None
    info = told()
    return info.uordblks + info.hblkhd, info.fordblks
