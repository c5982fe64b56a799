"""PDF: read the text of each page, join lines into paragraphs, and leave out headers and footers.

Scanned pages are recognised by `ocr`.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from chatglm.errors import DependencyError, InputError
from chatglm.knowledge.reading.documents import Draft, Limits, Mark, Reading
from chatglm.knowledge.reading.headings import with_headings
from chatglm.knowledge.reading.lines import Line, are_spaced, in_columns, in_rows, joined, repeated, text_of
from chatglm.knowledge.reading.ocr import Sight

__all__ = ["read_pdf"]

_SCAN_CHARACTERS = 20
"""A page with fewer characters than this, and a picture over more than half of it, is a scan."""
_OCR_SCALE = 200 / 72
"""Pixels per point for OCR: 200 dots per inch. Characters of 10 points are 28 pixels high."""
_LONGEST_TITLE = 120


def read_pdf(data: bytes, limits: Limits, sight: Sight) -> Reading:
    """Read a PDF file.

    Args:
        sight: recognises the text of scanned pages.

    Raises:
        DependencyError: `pypdfium2` is not installed.
        InputError: the file is damaged or encrypted, or has too many pages.
    """
    try:
        import pypdfium2
    except ImportError:
        raise DependencyError("PDF needs the pypdfium2 package: pip install 'chatglm[knowledge]'") from None
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "assword" in str(error):
            raise InputError("is protected by a password; save it without one") from None
        if "Success" in str(error):  # pdfium reports this for a document without pages
            return Reading("", media="application/pdf", warnings=("it has no pages",))
        raise InputError(f"is a damaged PDF ({error!s:.100})") from None
    try:
        return _Document(document, limits, sight).reading()
    except pypdfium2.PdfiumError as error:
        raise InputError(f"is a damaged PDF ({error!s:.100})") from None
    finally:
        document.close()


class _Document:
    def __init__(self, document: Any, limits: Limits, sight: Sight) -> None:
        self._document = document
        self._limits = limits
        self._sight = sight
        self._draft = Draft(limits)
        self._unread: defaultdict[str, list[int]] = defaultdict(list)

    def reading(self) -> Reading:
        count = len(self._document)
        if count > self._limits.pages:
            raise InputError(f"has {count:,} pages, and at most {self._limits.pages:,} are read; split it")
        pages = [self._lines(n) for n in range(count)]
        for page, left_out in zip(pages, repeated(pages), strict=True):
            page[:] = [line for place, line in enumerate(page) if place not in left_out]
        spaced = are_spaced(line.text for page in pages for line in page)
        for n, page in enumerate(pages, 1):
            with self._draft.part("page", str(n)):
                for paragraph in joined(page):
                    self._draft.line(text_of(paragraph, spaced))
        for reason, numbers in self._unread.items():
            self._draft.warnings.append(f"no text on {_pages(numbers)}: {reason}")
        reading = self._draft.reading("application/pdf")
        headings = self._outline(reading) or _by_size(reading, pages)
        marks = sorted([*reading.marks, *headings], key=lambda mark: (mark.start, -mark.end))
        return with_headings(replace(reading, marks=tuple(marks)))

    def _lines(self, n: int) -> list[Line]:
        import pypdfium2

        try:
            page = self._document[n]
        except pypdfium2.PdfiumError:
            self._unread["damaged"].append(n + 1)
            return []
        try:
            text = page.get_textpage()
            try:
                lines = _text_lines(page, text)
            finally:
                text.close()
            few = sum(len(line.text) for line in lines) < _SCAN_CHARACTERS
            seen = self._seen(n, page) if self._sight.always or (few and _is_scan(page)) else []
            return seen or lines
        except pypdfium2.PdfiumError:
            self._unread["damaged"].append(n + 1)
            return []
        finally:
            page.close()

    def _seen(self, n: int, page: Any) -> list[Line]:
        if reason := self._sight.missing:
            self._unread[f"a picture, and {reason}"].append(n + 1)
            return []
        width, height = page.get_size()
        scale = min(_OCR_SCALE, (self._limits.pixels / max(width * height, 1)) ** 0.5)
        bitmap = page.render(scale=scale)
        try:
            lines = self._sight.read(bitmap.to_pil())
        finally:
            bitmap.close()
        if not lines:
            self._unread["a picture in which nothing was recognised"].append(n + 1)
        return [
            Line(line.text, *(each / scale for each in (line.x0, line.x1, line.top, line.bottom))) for line in lines
        ]

    def _outline(self, reading: Reading) -> list[Mark]:
        """Headings from the document's outline (bookmarks). Each is placed at its title on the page, or at the
        beginning of the page if the title is not found."""
        pages = {int(mark.value): mark for mark in reading.marks if mark.kind == "page"}
        found: list[Mark] = []
        at = 0
        for title, level, number in self._entries():
            if number not in pages:
                continue
            page = pages[number]
            begin = max(at, page.start)
            spaces = r"\s*".join(re.escape(word) for word in title.split())
            line = re.compile(rf"^[^\n]{{0,24}}?{spaces}[ \t]*$", re.MULTILINE)
            match = line.search(reading.text, begin, page.end) or line.search(reading.text, page.start, page.end)
            if match and not any(mark.start == match.start() for mark in found[-3:]):
                found.append(Mark(match.start(), match.end(), "heading", " ".join(match[0].split()), level))
                at = match.end()
            elif not match:
                found.append(Mark(begin, begin, "heading", title, level))
        return found

    def _entries(self) -> Iterator[tuple[str, int, int]]:
        """The entries of the outline: (title, level, page), both from 1."""
        with contextlib.suppress(Exception):  # ignore a damaged outline
            for n, entry in enumerate(self._document.get_toc(max_depth=9)):
                if n >= self._limits.members:
                    return
                title = " ".join((entry.get_title() or "").replace("\0", "").split())[:_LONGEST_TITLE]
                target = entry.get_dest()
                page = target.get_index() if target else None
                if title and page is not None:
                    yield title, entry.level + 1, page + 1


def _pages(numbers: Sequence[int]) -> str:
    """Format page numbers for a message: `pages 3, 5–7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    said = [f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return ("pages " if len(numbers) > 1 else "page ") + ", ".join(said[:20]) + (", …" if len(said) > 20 else "")


def _text_lines(page: Any, text: Any) -> list[Line]:
    """The lines of a page in reading order. This is usually the order of the file; if the file alternates between two
    columns, the lines are sorted by their position."""
    width, height = page.get_size()
    whole: str = text.get_text_range()
    lines: list[Line] = []
    at = 0
    for part in whole.split("\n"):
        said = part.rstrip("\r").replace("\ufffe", "-").replace("\0", "")
        begin = at + len(part) - len(part.lstrip())
        end = at + len(part.rstrip()) - 1
        at += len(part) + 1
        if not said.strip():
            continue
        first, last = _box(text, begin), _box(text, end)
        lines.append(Line(said, first[0], last[2], height - max(first[3], last[3]), height - min(first[1], last[1])))
    segments = _segments(text, height)
    if len(segments) > 1.25 * len(lines) and _is_interleaved(segments, width):
        for segment in segments:
            box = (segment.x0 - 0.5, height - segment.bottom - 0.5, segment.x1 + 0.5, height - segment.top + 0.5)
            segment.text = " ".join(text.get_text_bounded(*box).split())
        lines = in_columns([segment for segment in segments if segment.text], width)
    return in_rows(lines)


def _segments(text: Any, height: float) -> list[Line]:
    """Parts of rows, divided at wide gaps; only with positions. Empty if there are 5,000 rectangles or more."""
    count = text.count_rects()
    found: list[Line] = []
    for n in range(count if count < 5000 else 0):
        left, bottom, right, top = text.get_rect(n)
        part = Line("", left, right, height - top, height - bottom)
        last = found[-1] if found else None
        if last and abs(part.bottom - last.bottom) < 0.5 * last.height and -1 < part.x0 - last.x1 < 1.2 * last.height:
            last.x1, last.top = max(last.x1, part.x1), min(last.top, part.top)
        else:
            found.append(part)
    return found


def _box(text: Any, place: int) -> tuple[float, float, float, float]:
    """The box of a character (left, bottom, right, top), in points."""
    try:
        box: tuple[float, float, float, float] = text.get_charbox(place, loose=True)
    except Exception:  # characters that pdfium itself has inserted have no box
        return 0.0, 0.0, 0.0, 0.0
    return box


def _is_interleaved(parts: Sequence[Line], width: float) -> bool:
    """Whether the file alternates between the left and the right side of the page line by line."""
    sides = [
        0 if part.x1 < 0.6 * width and part.x0 < 0.4 * width else 1 if part.x0 > 0.4 * width else 2 for part in parts
    ]
    rows = sum(
        one + other == 1 and abs(a.top - b.top) < a.height
        for one, other, a, b in zip(sides, sides[1:], parts, parts[1:], strict=False)
    )
    return rows > 0.25 * len(parts)


def _is_scan(page: Any) -> bool:
    """Whether a picture covers more than half of a page."""
    import pypdfium2.raw

    width, height = page.get_size()
    area = 0.0
    for each in page.get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = each.get_bounds()
        area = max(area, (min(right, width) - max(left, 0)) * (min(top, height) - max(bottom, 0)))
    return area > 0.5 * width * height


def _by_size(reading: Reading, pages: Sequence[Sequence[Line]]) -> list[Mark]:
    """Headings by font size: short lines that are taller than the usual line. The largest size is level 1."""
    heights = [line.height for page in pages for line in page for _ in range(len(line.text) // 10 + 1)]
    if not heights:
        return []
    usual = median(heights)
    marks = [mark for mark in reading.marks if mark.kind == "page"]
    found: list[tuple[float, int, int, str]] = []
    for mark in marks:
        at = mark.start
        for line in pages[int(mark.value) - 1]:
            said = line.text.strip()
            place = reading.text.find(said, at, mark.end)
            if place < 0:
                continue
            at = place + len(said)
            if line.height > 1.2 * usual and 1 < len(said) <= 40 and said[-1] not in "。，；、,;":
                found.append((round(line.height / usual, 1), place, at, said))
    sizes = sorted({size for size, *_ in found}, reverse=True)
    if not found or len(found) > 0.3 * sum(map(len, pages)):
        return []
    return [Mark(a, b, "heading", " ".join(said.split()), min(sizes.index(size) + 1, 6)) for size, a, b, said in found]
