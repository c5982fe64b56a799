"""A shell without IPython, in the place of `shell.py`. A message is Python code, with its length (4 bytes) before it;
the answer is what the code printed."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import traceback
from typing import Any


def prepare(policy: dict[str, Any]) -> None:
    pass


def serve(channel: int) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    with socket.socket(fileno=channel) as host, host.makefile("rwb") as lines:
        while head := lines.read(4):
            code = lines.read(struct.unpack(">I", head)[0]).decode()
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                try:
                    exec(code, space)  # noqa: S102 - what the sandbox is for
                except BaseException:
                    printed.write(traceback.format_exc())
            answer = printed.getvalue().encode("utf-8", "replace")
            lines.write(struct.pack(">I", len(answer)) + answer)
            lines.flush()
