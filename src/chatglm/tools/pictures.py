"""Pictures that a tool or a model's code made: PNG files, checked by their header before anybody gets them."""

from __future__ import annotations

import struct

__all__ = ["LARGEST", "LONGEST_SIDE", "png_problem"]

LARGEST = 4 << 20
LONGEST_SIDE = 4096
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_problem(data: bytes, side: int = LONGEST_SIDE, largest: int = LARGEST) -> str:
    """Why a file is no picture that can be shown; "" if it is one.

    Read are the signature and the first chunk, IHDR, with the size in pixels (PNG, ISO/IEC 15948, 5.2 and 11.2.2).

    Args:
        side: pixels that it may have each way.
        largest: bytes that it may have.
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
