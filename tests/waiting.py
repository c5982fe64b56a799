"""Waiting for what other threads, processes and servers do.

A deadline is long, because it costs time only if the test fails; a machine that has much to do needs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_NEVER = "it does not come to hold"


def until(
    true: Callable[[], T], *, seconds: float = 120, pause: float = 0.01, told: Callable[[], object] | str = _NEVER
) -> T:
    """What `true` returns, as soon as that is true; `told` is said if it never is."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, told() if callable(told) else told
        time.sleep(pause)
    return found


async def auntil(
    true: Callable[[], T], *, seconds: float = 120, pause: float = 0.01, told: Callable[[], object] | str = _NEVER
) -> T:
    """`until` for coroutines, while the others go on."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, told() if callable(told) else told
        await asyncio.sleep(pause)
    return found
