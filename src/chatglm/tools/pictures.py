"""Checks the headers of pictures (PNG files) that a tool or a model's code made, before anybody gets them."""

from __future__ import annotations

import struct

__all__ = ["LARGEST", "LONGEST_SIDE", "png_problem"]

LARGEST = 4 << 20
LONGEST_SIDE = 4096
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_problem(data: bytes, side: int = LONGEST_SIDE, largest: int = LARGEST) -> str:
    """The reason why a file cannot be shown as a picture; "" if it can.

    It reads the signature and the first chunk, IHDR, with the size in pixels (PNG, ISO/IEC 15948, 5.2 and 11.2.2).

    Args:
        side: most pixels of width and of height.
        largest: most bytes of the file.
    """
    if len(data) > largest:
        return f"{len(data):,} bytes; the limit is {largest:,}"
    if len(data) < 33 or not data.startswith(_SIGNATURE):
        return "no PNG file"
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if length != 13 or kind != b"IHDR":
        return "no PNG file"
    if not (0 < width <= side and 0 < height <= side):
        return f"{width} × {height} pixels; the limit is {side} each way"
    return ""
