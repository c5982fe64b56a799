"""What only the garbage collector would free: objects of this package that refer to each other.

A full collection is rare, and what waits for it is as large as the requests were: so nothing should.
"""

from __future__ import annotations

import contextlib
import gc
import types
from collections.abc import Iterator

from chatglm.chat.messages import Message
from chatglm.engine.engine import Request


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """What is done in here, and over at the end, leaves no stack frames, messages or requests in cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = sorted({named for one in gc.garbage if (named := _name(one))})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found, found


def _name(one: object) -> str:
    if isinstance(one, types.FrameType):
        code = one.f_code
        return f"{code.co_filename}: {code.co_qualname}"
    return type(one).__name__ if isinstance(one, Message | Request) else ""
