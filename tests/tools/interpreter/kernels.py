"""What the interpreter's tests share: kernels in an event loop of a thread, and whether this machine can have any."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from chatglm.tools.interpreter.sandbox import protection

__all__ = ["need_sandbox", "pieces"]


def need_sandbox() -> None:
    """Skip where no sandbox can be had; in CI there must be one."""
    pytest.importorskip("IPython")
    found = protection()
    if found.tier == "none":
        missing = "; ".join(f"{layer}: {reason}" for layer, reason in found.layers.items() if reason)
        if os.environ.get("CI"):
            pytest.fail(f"the sandbox must work in CI ({missing})")
        pytest.skip(f"no sandbox on this machine ({missing})")


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
