"""Render a page of a PDF as a picture in which a quotation is highlighted."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatglm.errors import DependencyError, InputError
from chatglm.knowledge.reading.documents import Limits

__all__ = ["picture_of"]

_SCALE = 110 / 72
"""Pixels per point: 110 dots per inch. A page of A4 has 909 × 1,286 pixels."""
_PIXELS = 4_000_000
_MARK = np.array([246, 225, 150], np.uint16)
_RECTANGLES = 500


def picture_of(data: bytes, page: int, quote: str, limits: Limits) -> bytes:
    """Render a page of a PDF as a PNG file of at most 4 million pixels.

    Args:
        data: the bytes of the PDF.
        page: number of the page, from 1.
        quote: text to highlight. White space is ignored in the comparison. If it is not found, nothing is highlighted.
        limits: limits for the number of pages.

    Raises:
        DependencyError: `pypdfium2` is not installed.
        InputError: the PDF is damaged or has no such page.
    """
    try:
        import pypdfium2
    except ImportError:
        raise DependencyError("PDF needs the pypdfium2 package: pip install 'chatglm[knowledge]'") from None
    try:
        document = pypdfium2.PdfDocument(data)
        try:
            if not 1 <= page <= min(len(document), limits.pages):
                raise InputError(f"has no page {page}")
            return _drawn(document[page - 1], quote)
        finally:
            document.close()
    except pypdfium2.PdfiumError as error:
        raise InputError(f"is a damaged PDF ({error!s:.100})") from None


def _drawn(page: Any, quote: str) -> bytes:
    width, height = page.get_size()
    scale = min(_SCALE, (_PIXELS / max(width * height, 1)) ** 0.5)
    bitmap = page.render(scale=scale, rev_byteorder=True)
    try:
        pixels = np.array(bitmap.to_numpy()[:, :, :3] if bitmap.n_channels > 1 else bitmap.to_numpy())
    finally:
        bitmap.close()
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    for left, bottom, right, top in _places(page, quote):
        rows = slice(max(0, int((height - top) * scale) - 1), max(0, int((height - bottom) * scale) + 2))
        columns = slice(max(0, int(left * scale) - 1), max(0, int(right * scale) + 2))
        part = pixels[rows, columns]
        pixels[rows, columns] = (part.astype(np.uint16) * _MARK // 255).astype(np.uint8)  # dark text stays dark
    return _png(pixels)


def _places(page: Any, quote: str) -> list[tuple[float, float, float, float]]:
    """The rectangles (left, bottom, right, top) of a quotation on a page, in points."""
    wanted = "".join(quote.split())
    if not wanted:
        return []
    text = page.get_textpage()
    try:
        said: str = text.get_text_range()
        at = [place for place, character in enumerate(said) if not character.isspace()]
        found = "".join(said[place] for place in at).find(wanted)
        if found < 0:
            return []
        first, last = at[found], at[found + len(wanted) - 1]
        count = text.count_rects(first, last - first + 1)
        return [text.get_rect(n) for n in range(min(count, _RECTANGLES))]
    finally:
        text.close()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image as PNG (RFC 2083).

    Args:
        pixels: (height, width, 3): red, green, blue.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # the first byte of each row is its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
        + chunk(b"IEND", b"")
    )
