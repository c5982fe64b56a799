"""The host's end of a kernel's socket: writes and reads frames. Incoming frames are foreign, so their size is checked
before they are read.

The form of a frame is described in `shell.py`, the other end.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatglm.errors import SandboxError

__all__ = ["Frame", "Frames", "frame"]

HEADER = 128 << 10
"""Most bytes of a frame's JSON: enough for 8,192 escaped characters."""
BODY = 16 << 20
"""Most bytes of a frame's raw part."""


def frame(kind: str, **fields: Any) -> bytes:
    """Make a message for the shell."""
    header = json.dumps({"kind": kind, **fields}).encode("ascii")
    return struct.pack(">II", len(header), 0) + header


@dataclass(frozen=True)
class Frame:
    """A message of a kernel.

    Attributes:
        kind: its kind, as the kernel calls it.
        fields: the rest of its JSON.
        body: raw bytes; empty if there were more than the reader keeps.
        size: number of raw bytes that were sent.
    """

    kind: str
    fields: Mapping[str, Any]
    body: bytes
    size: int


class Frames:
    """Reads frames from a stream, in pieces of any size.

    Args:
        keep: most bytes of a raw part that is kept; a longer one is read and dropped.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._data = bytearray()
        self._header: tuple[str, dict[str, Any]] | None = None
        self._size = self._left = 0

    @property
    def waiting(self) -> int:
        """Number of bytes that were received, but are not a complete frame yet."""
        return len(self._data)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Add bytes; yields the frames that are complete now.

        Raises:
            SandboxError: a length is over its limit, or the JSON is not an object with a `kind`.
        """
        self._data += data
        while True:
            if self._header is None:
                if len(self._data) < 8:
                    return
                header, size = struct.unpack_from(">II", self._data)
                if header > HEADER or size > BODY:
                    raise SandboxError(f"the kernel announced a message of {header + size} bytes")
                if len(self._data) < 8 + header:
                    return
                self._header = _read(bytes(self._data[8 : 8 + header]))
                del self._data[: 8 + header]
                self._size = self._left = size
            if self._size > self._keep:
                gone = min(self._left, len(self._data))
                del self._data[:gone]
                self._left -= gone
                if self._left:
                    return
                body = b""
            else:
                if len(self._data) < self._size:
                    return
                body = bytes(self._data[: self._size])
                del self._data[: self._size]
            (kind, fields), self._header = self._header, None
            yield Frame(kind, fields, body, self._size)


def _read(header: bytes) -> tuple[str, dict[str, Any]]:
    try:
        data = json.loads(header)
    except (ValueError, RecursionError):
        raise SandboxError("the kernel sent a message that is not JSON") from None
    if not isinstance(data, dict) or not isinstance(kind := data.pop("kind", None), str):
        raise SandboxError("the kernel sent a message without a kind")
    return kind, data
